//! The one suite that every provider passes, whichever service is behind it.

pub(crate) use atrest_testkit::kms::{
    Denial, Limits, Service, assert_hides, assert_opens, check_denial, context, key, kind,
    kms_conformance as check, same, soon,
};
