//! The sizes of objects that are not read: what heads and listings say.

use super::super::object_store::path::Path;
use super::super::object_store::{Error, GetOptions, GetResult, ObjectMeta, Result};
use super::super::{check_start, emptied, first_of};
use super::{Reads, without_body};
use crate::policy::claimed_len_of;
use atrest::{HEADER_LEN, Header};

impl Reads {
    /// Whether lengths tell sizes. Where objects may be of several kinds, their first bytes have
    /// to be looked at.
    fn lengths_tell(&self) -> bool {
        !self.opener.policy.both && !self.opener.allows_plaintext()
    }

    /// What is known without the data, by one request.
    pub(super) async fn head(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut result = if self.lengths_tell() {
            let head = GetOptions { range: None, ..options };
            let mut result = without_body(self.inner.get_opts(location, head).await?);
            result.meta.size = self.opener.policy.claimed_len(result.meta.size);
            result
        } else {
            self.look(location, &options).await?
        };
        result.range = 0..result.meta.size;
        Ok(result)
    }

    /// An object that was listed, with the size of its plaintext, as it claims. `None` if it is
    /// gone meanwhile; the one that took its place, if one did.
    pub(crate) async fn listed(&self, mut meta: ObjectMeta) -> Result<Option<ObjectMeta>> {
        if meta.size == 0 || self.lengths_tell() {
            meta.size = self.opener.policy.claimed_len(meta.size);
            return Ok(Some(meta));
        }
        if let Some(known) = self.headers.find_same(&meta.location, meta.e_tag.as_deref()) {
            meta.size = known.len();
            return Ok(Some(meta));
        }
        // On no condition: some stores list an ETag otherwise than they compare it.
        match self.look(&meta.location, &GetOptions::default()).await {
            Ok(found) if found.meta.e_tag == meta.e_tag => {
                meta.size = found.meta.size;
                Ok(Some(meta))
            }
            Ok(found) => Ok(Some(found.meta)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An answer without its body, with the size that the object's first bytes tell. Never one
    /// that is guessed because they did not come: whoever believes it would read a part of the
    /// object and miss nothing.
    async fn look(&self, location: &Path, options: &GetOptions) -> Result<GetResult> {
        let range = Some((0..HEADER_LEN as u64).into());
        let wanted = GetOptions { range, head: false, ..options.clone() };
        let result = self.get_start(location, wanted).await?;
        let mut answer = emptied(&result);
        let physical_len = answer.meta.size;
        let start = first_of(result, HEADER_LEN).await?;
        check_start(location, &start, physical_len)?;
        answer.meta.size = match self.opener.open(location, &start, physical_len).await {
            Ok(body) => {
                self.keep(location, options, &answer.meta, &body);
                body.len(physical_len)
            }
            // Sizes need no key. What has no header that is read is refused by every read too.
            Err(_) => match Header::parse(&start) {
                Ok(header) => claimed_len_of(&header, physical_len),
                Err(_) => self.opener.policy.claimed_len(physical_len),
            },
        };
        Ok(answer)
    }
}
