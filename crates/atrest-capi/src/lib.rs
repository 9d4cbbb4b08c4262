//! The C interface of atrest: `include/atrest.h`, which is made from these sources.
//!
//! Nothing here decides anything: each function takes C's arguments apart, calls the Rust
//! library, and turns what comes back into a code and a text. Rust programs use [`atrest`].
//!
//! # Safety
//! The rules for callers stand at the top of the header, once for all functions: pointers are
//! valid, handles are not used after they were freed. Every pointer of a caller is taken apart
//! in `border.rs`.

#![allow(unsafe_code, reason = "the border to C; ARCHITECTURE.md lists it")]
#![allow(clippy::missing_safety_doc, reason = "one set of rules, at the top of the header")]

mod access;
mod border;
mod code;
mod context;
mod file;
mod hook;
mod names;
mod options;
mod store;

pub use access::{atrest1_access_check, atrest1_access_on_change};
pub use access::{atrest1_access_restore, atrest1_access_revoke};
pub use border::atrest1_error_text;
pub use code::{Atrest1, atrest1_code_name};
pub use context::{Atrest1Decryptor, atrest1_decrypt_at, atrest1_decryptor_free};
pub use context::{Atrest1Encryptor, atrest1_encrypt_at, atrest1_encryptor_free};
pub use context::{atrest1_decryptor_new, atrest1_encryptor_new, atrest1_encryptor_position};
pub use file::atrest1_reader_written_len;
pub use file::{Atrest1Reader, atrest1_reader_free, atrest1_reader_len, atrest1_reader_open};
pub use file::{Atrest1Torn, atrest1_reader_torn, atrest1_writer_position, atrest1_writer_sync};
pub use file::{
    Atrest1Writer, atrest1_writer_append, atrest1_writer_create, atrest1_writer_finish,
};
pub use file::{atrest1_reader_read_at, atrest1_writer_flush, atrest1_writer_free};
pub use hook::{Atrest1Access, Atrest1AccessCallback};
pub use names::{atrest1_create_directory, atrest1_is_reserved, atrest1_remove_directory};
pub use names::{atrest1_generate_key_file, atrest1_sync_directory, atrest1_take_over_directory};
pub use names::{atrest1_link, atrest1_register_directory, atrest1_remove, atrest1_rename};
pub use store::{ATREST1_ABI, ATREST1_HEADER_LEN, Atrest1Store, atrest1_abi, atrest1_version};
pub use store::{atrest1_store_close, atrest1_store_free, atrest1_store_open};
pub use store::{atrest1_store_rotate, atrest1_store_status_json, atrest1_string_free};
