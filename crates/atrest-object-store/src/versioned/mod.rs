//! What knows `object_store`: compiled once for each of its versions, by the module above, which
//! names it. What is in here is found by `super`: `crate` would be the default version's.

use super::{emptied, object_store};

mod backup_target;
mod body;
mod ciphertext;
mod error;
mod headers;
mod keyring_storage;
mod kinds;
mod open;
mod opening;
mod read;
mod reserved;
mod store;
mod upload;
mod usage;

pub(crate) use body::{check_start, first_of};

pub use backup_target::ObjectStoreTarget;
pub use keyring_storage::ObjectStoreKeyringStorage;
pub use kinds::slatedb_file_kind;
pub use reserved::KEYRING_PREFIX;
pub use store::EncryptedStore;
pub use usage::{ObjectCount, ObjectUsage, starts};

use futures_util::StreamExt;
use futures_util::stream;
use object_store::GetResultPayload;

/// The payload of an answer without a body.
pub(super) fn nothing() -> GetResultPayload {
    GetResultPayload::Stream(stream::empty().boxed())
}
