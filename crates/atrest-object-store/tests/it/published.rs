//! The tests that the crate `object_store` publishes for its own stores.

use object_store::integration::*;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;

use crate::served::EncryptedStore;
use crate::support::Keys;

/// All that apply. Left out: those of the traits that an encrypting store does not have
/// (`MultipartStore`, `PaginatedListStore`).
async fn all(store: &EncryptedStore, supports_update: bool) {
    put_get_delete_list(store).await;
    get_opts(store).await;
    list_uses_directories_correctly(store).await;
    list_with_delimiter(store).await;
    rename_and_copy(store).await;
    copy_if_not_exists(store).await;
    copy_rename_nonexistent_object(store).await;
    multipart_race_condition(store, true).await;
    multipart_out_of_order(store).await;
    put_get_attributes(store).await;
    put_opts(store, supports_update).await;
    list_with_offset_exclusivity(store).await;
    stream_get(store).await;
    get_nonexistent_object(store, None).await.unwrap_err();
}

#[tokio::test]
async fn in_memory_passes_the_published_tests() {
    for keys in Keys::both() {
        all(&keys.store(InMemory::new()), true).await;
    }
}

#[tokio::test]
async fn a_local_file_system_passes_the_published_tests() {
    for keys in Keys::both() {
        let dir = tempfile::tempdir().unwrap();
        let raw = LocalFileSystem::new_with_prefix(dir.path()).unwrap();
        all(&keys.store(raw), false).await;
    }
}

#[tokio::test]
async fn a_fresh_cache_passes_the_published_tests() {
    for keys in Keys::both() {
        // Two entries: hardly anything is remembered.
        let store = keys.store(InMemory::new());
        all(&store.with_header_cache_len(2.try_into().unwrap()), true).await;
    }
}

#[tokio::test]
async fn a_store_of_both_kinds_passes_the_published_tests() {
    for keys in Keys::both() {
        all(&keys.store(InMemory::new()).with_both_read(), true).await;
    }
}
