/* atrest for C. Made by cbindgen from the sources. */

/*
 * RULES, for every function:
 *
 * - It returns ATREST1_OK or a code. `atrest1_error_text` then tells more, in the same thread.
 * - A handle is freed once, by the function of its name that ends in `_free`; NULL may be freed.
 *   A store may be freed before its files.
 * - Any thread may use any handle, several at a time too; none may use a freed one.
 * - Strings end in a zero byte. Paths are bytes; all other strings are UTF-8.
 * - Pointers to memory are valid for the lengths given with them; a length of 0 allows NULL.
 *   Where a pointer may be NULL otherwise, its function says so.
 * - A panic inside is caught and returned as ATREST1_PANIC; what it met takes no more.
 * - Names that begin with atrest1_ keep their meaning. A function that has to change gets
 *   another prefix beside the old one.
 */


#ifndef ATREST_H
#define ATREST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Bytes of the header in front of every encrypted file.
#define ATREST1_HEADER_LEN 4096

// The version of the interface that this header describes: it rises when a function is added.
#define ATREST1_ABI 1

// What a call returns. The numbers are stable; new ones may come.
enum Atrest1
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Done.
    ATREST1_OK = 0,
    // A kind of error that this version of the interface has no number for.
    ATREST1_OTHER = 1,
    // A panic was caught: a fault of this library.
    ATREST1_PANIC = 2,
    // An argument breaks a rule: a NULL pointer, a string that is not UTF-8, an option.
    ATREST1_INVALID_ARGUMENT = 3,
    // Bytes were to be encrypted at another offset than the next one. Nothing was done.
    ATREST1_NOT_SEQUENTIAL = 4,
    // The handle takes no more: finished, an earlier failure, or a forked child.
    ATREST1_POISONED = 5,
    // The handle is for reading only.
    ATREST1_READ_ONLY = 6,
    // The file would exceed 2^44 bytes.
    ATREST1_FILE_TOO_LARGE = 7,
    // The file does not begin like an encrypted one.
    ATREST1_NOT_ENCRYPTED = 20,
    // A keyring, or a file of another encryption tool.
    ATREST1_FOREIGN_FILE = 21,
    // The file has 0 bytes: a crash before its first write.
    ATREST1_EMPTY_FILE = 22,
    // The file ends inside its 4096-byte header, or has zeros in its place.
    ATREST1_TRUNCATED_HEADER = 23,
    // Bit rot in the header.
    ATREST1_CORRUPT_HEADER = 24,
    // Written by a newer version.
    ATREST1_UNSUPPORTED_VERSION = 25,
    // Needs a feature that this version, or the file's suite, does not have.
    ATREST1_UNSUPPORTED_FEATURE = 26,
    // The keyring has no usable data key of that id.
    ATREST1_UNKNOWN_KEY = 27,
    // The key does not fit the header: a wrong key, or somebody changed the header.
    ATREST1_WRONG_KEY = 28,
    // A good file, but not the one asked for.
    ATREST1_IDENTITY_MISMATCH = 29,
    // The store requires authentication, and the file's suite has none.
    ATREST1_SUITE_TOO_WEAK = 30,
    // The ciphertext was changed.
    ATREST1_AUTHENTICATION = 31,
    // A temporary file whose key is gone: delete it.
    ATREST1_TEMPORARY_ENDED = 32,
    // The data key was destroyed on purpose: delete the file.
    ATREST1_KEY_DESTROYED = 33,
    // There is no keyring.
    ATREST1_KEYRING_MISSING = 40,
    // There is one already.
    ATREST1_KEYRING_EXISTS = 41,
    // It ends too early.
    ATREST1_KEYRING_TRUNCATED = 42,
    // Bit rot in it.
    ATREST1_KEYRING_CORRUPT = 43,
    // The customer's key unwrapped another store's key.
    ATREST1_WRONG_STORE_KEY = 44,
    // Somebody put an old one back.
    ATREST1_KEYRING_ROLLED_BACK = 45,
    // Another process has the store open for writing.
    ATREST1_KEYRING_BUSY = 46,
    // Another writer committed first.
    ATREST1_KEYRING_CONFLICT = 47,
    // Access to the customer's key was withdrawn: no key is in memory.
    ATREST1_CMEK_REVOKED = 60,
    // The key service cannot be reached now.
    ATREST1_KMS_UNAVAILABLE = 61,
    // The key service denies access to the key.
    ATREST1_KMS_DENIED = 62,
    // The key's URI, credentials or options are wrong, or the answer makes no sense.
    ATREST1_KMS_FAILED = 63,
    // The file system failed.
    ATREST1_IO = 80,
    // There is no such file.
    ATREST1_IO_NOT_FOUND = 81,
    // There is such a file.
    ATREST1_IO_EXISTS = 82,
    // The file ends before that.
    ATREST1_IO_END = 83,
    // The disk or a quota is full.
    ATREST1_IO_FULL = 84,
    // The system does not permit it.
    ATREST1_IO_DENIED = 85,
    // The file system cannot do that, or not between two.
    ATREST1_IO_UNSUPPORTED = 86,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum Atrest1 Atrest1;
#else
typedef int32_t Atrest1;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What is known of access to the customer's key.
enum Atrest1Access
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The last check was good.
    ATREST1_ACCESS_ACTIVE = 0,
    // No clear answer; grace is running. Files work.
    ATREST1_ACCESS_UNREACHABLE = 1,
    // Denied, not yet confirmed. Files work.
    ATREST1_ACCESS_SUSPECT = 2,
    // Denied, or withdrawn on request. No key is in memory.
    ATREST1_ACCESS_REVOKED = 3,
    // The key is disabled or about to be deleted. No key is in memory.
    ATREST1_ACCESS_DISABLED = 4,
    // The key is gone. No key is in memory.
    ATREST1_ACCESS_DESTROYED = 5,
    // No clear answer for too long. No key is in memory.
    ATREST1_ACCESS_SUSPENDED = 6,
    // Access is back and files work again.
    ATREST1_ACCESS_RESTORED = 7,
    // A state that this version of the interface has no number for.
    ATREST1_ACCESS_OTHER = 99,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum Atrest1Access Atrest1Access;
#else
typedef int32_t Atrest1Access;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Why a log in suite 3 ends before its file does.
enum Atrest1Torn
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // It does not; or another suite.
    ATREST1_TORN_NO = 0,
    // Its last append was cut off by a crash, or is being written.
    ATREST1_TORN_CUT = 1,
    // Zeros, which a crash left.
    ATREST1_TORN_ZEROS = 2,
    // Damage: a length that no append has.
    ATREST1_TORN_LENGTH = 3,
    // Damage, or a part of an append that a crash left unwritten.
    ATREST1_TORN_AUTHENTICATION = 4,
    // A reason that this version of the interface has no number for.
    ATREST1_TORN_OTHER = 99,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum Atrest1Torn Atrest1Torn;
#else
typedef int32_t Atrest1Torn;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Decrypts one file at any offset.
typedef struct Atrest1Decryptor Atrest1Decryptor;

// Encrypts one new file from its first byte to its last.
typedef struct Atrest1Encryptor Atrest1Encryptor;

// A file open for reading.
typedef struct Atrest1Reader Atrest1Reader;

// An open store.
typedef struct Atrest1Store Atrest1Store;

// A new file.
typedef struct Atrest1Writer Atrest1Writer;

// Told of each change: what was, what is, and the pointer that was given with it.
typedef void (*Atrest1AccessCallback)(void *user, Atrest1Access was, Atrest1Access is);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Calls `callback` with `user` at each change from now on, in any thread, instead of the one
// before; NULL calls nobody. When this returns, the one before runs no more. When keys are
// withdrawn they are gone before it is called. It MUST NOT call this function, or close or
// free the store, and MUST NOT throw an exception or jump out.
Atrest1 atrest1_access_on_change(const struct Atrest1Store *store,
                                 Atrest1AccessCallback callback,
                                 void *user);

// Asks the key service now and acts on the answer, as a background thread does every few
// minutes. What is known then goes to `access`, unless that is NULL.
Atrest1 atrest1_access_check(const struct Atrest1Store *store, Atrest1Access *access);

// Withdraws access: every open file refuses when this returns, and nothing opens the store
// before `atrest1_access_restore` or `atrest cmek restore`.
Atrest1 atrest1_access_revoke(const struct Atrest1Store *store);

// Asks the key service again; if it unwraps the key, open files go on where they were.
Atrest1 atrest1_access_restore(const struct Atrest1Store *store);

// The text of the last call of this thread that failed; empty if none did. It is valid until
// the next one fails, or the thread ends. It holds no key material.
const char *atrest1_error_text(void);

// The name of a code in lower case, stable for logs; "unknown" for any other number.
const char *atrest1_code_name(int32_t code);

// A fresh key for a new file in counter mode (suite 1), whose ciphertext is as long as its
// plaintext. The ATREST1_HEADER_LEN bytes that go in front of it are put into `header`.
// `kind`: 1 table, 2 log, 3 manifest, 4 blob, 5 other, 6 temporary (its key is in
// memory alone). `file_id` names the file for the engine; 0 for none.
//
// A store that requires authentication refuses: `atrest1_writer_create` writes its files.
Atrest1 atrest1_encryptor_new(const struct Atrest1Store *store,
                              uint32_t kind,
                              uint64_t file_id,
                              uint8_t *header,
                              struct Atrest1Encryptor **encryptor);

// Encrypts where they stand the bytes that go to `offset`, counted from the end of the header.
// That has to be where the last call ended: no byte of the file is encrypted twice, so a
// write that failed is tried again with the SAME ciphertext. ATREST1_NOT_SEQUENTIAL otherwise;
// `data` is then unchanged.
Atrest1 atrest1_encrypt_at(const struct Atrest1Encryptor *encryptor,
                           uint64_t offset,
                           uint8_t *data,
                           size_t len);

// The offset of the next byte.
Atrest1 atrest1_encryptor_position(const struct Atrest1Encryptor *encryptor,
                                   uint64_t *position);

// Frees it. Nothing can be appended to the file any more: an old file's key encrypts nothing.
void atrest1_encryptor_free(struct Atrest1Encryptor *encryptor);

// The key of an existing file in counter mode, from its first ATREST1_HEADER_LEN bytes, or
// fewer if it is shorter: ATREST1_EMPTY_FILE and ATREST1_TRUNCATED_HEADER are what a crash
// leaves. With `kind` or `file_id` not 0, another file is refused.
Atrest1 atrest1_decryptor_new(const struct Atrest1Store *store,
                              const uint8_t *header,
                              size_t header_len,
                              uint32_t kind,
                              uint64_t file_id,
                              struct Atrest1Decryptor **decryptor);

// Decrypts where they stand the bytes read at `offset`, counted from the end of the header.
// Counter mode does not notice changed bytes. This is XOR with the file's keystream: what
// comes of bytes that are not the file's MUST NOT leave the process.
Atrest1 atrest1_decrypt_at(const struct Atrest1Decryptor *decryptor,
                           uint64_t offset,
                           uint8_t *data,
                           size_t len);

// Frees it.
void atrest1_decryptor_free(struct Atrest1Decryptor *decryptor);

// Creates a file that must not exist, under a fresh key. `kind`: 1 table, 2 log, 3 manifest,
// 4 blob, 5 other, 6 temporary (its key is in memory alone). `file_id` names it for the engine;
// 0 for none. `suite`: 0 for what the store's settings ask for, or 1 (counter mode, the default
// without settings; changes are not noticed), 2 (authenticated chunks: for tables; readable once
// finished), 3 (authenticated appends: for logs).
Atrest1 atrest1_writer_create(const struct Atrest1Store *store,
                              const char *file,
                              uint32_t kind,
                              uint64_t file_id,
                              uint32_t suite,
                              struct Atrest1Writer **writer);

// Appends bytes. They are durable after a sync or the end. In suite 3 each append is read back
// as a whole or not at all.
Atrest1 atrest1_writer_append(const struct Atrest1Writer *writer,
                              const uint8_t *data,
                              size_t len);

// Hands all that was appended to the system, without making it durable.
Atrest1 atrest1_writer_flush(const struct Atrest1Writer *writer);

// Makes all that was appended durable; in suite 2 only the chunks that are full.
Atrest1 atrest1_writer_sync(const struct Atrest1Writer *writer);

// Bytes appended so far.
Atrest1 atrest1_writer_position(const struct Atrest1Writer *writer, uint64_t *position);

// Ends the file, and with `durable` makes its content durable; its name is so after
// `atrest1_sync_directory`. Afterwards the writer can only be freed.
Atrest1 atrest1_writer_finish(const struct Atrest1Writer *writer, bool durable);

// Frees it. A file that was not finished loses what was not synced, as in a crash, and in
// suite 2 is never readable.
void atrest1_writer_free(struct Atrest1Writer *writer);

// Opens a file for reading. With `kind` or `file_id` not 0, another file is refused.
Atrest1 atrest1_reader_open(const struct Atrest1Store *store,
                            const char *file,
                            uint32_t kind,
                            uint64_t file_id,
                            struct Atrest1Reader **reader);

// The length of its plaintext in bytes.
Atrest1 atrest1_reader_len(const struct Atrest1Reader *reader, uint64_t *len);

// The length up to the first place that was allocated and never written, as a power cut leaves
// it; that of the plaintext where there is none. In suite 1 what is behind reads as noise: a
// recovery reads no further. Up to 15 bytes in front of it may be unwritten too. Reads the file.
Atrest1 atrest1_reader_written_len(const struct Atrest1Reader *reader,
                                   uint64_t *len);

// Why the log ends where it does, as of opening or of the last look behind its end. An engine
// that reads to the end MUST ask: damage looks like the end of a shorter log.
Atrest1 atrest1_reader_torn(const struct Atrest1Reader *reader, Atrest1Torn *torn);

// Reads up to `len` bytes at `offset`; fewer only at the end of the file. How many goes to
// `count`. After an error `data` holds zeros.
Atrest1 atrest1_reader_read_at(const struct Atrest1Reader *reader,
                               uint64_t offset,
                               uint8_t *data,
                               size_t len,
                               size_t *count);

// Frees it.
void atrest1_reader_free(struct Atrest1Reader *reader);

// Renames a file or directory over whatever is at `to`.
Atrest1 atrest1_rename(const struct Atrest1Store *store, const char *from, const char *to);

// Makes a hard link; `to` must not exist.
Atrest1 atrest1_link(const struct Atrest1Store *store, const char *from, const char *to);

// Removes a file.
Atrest1 atrest1_remove(const struct Atrest1Store *store, const char *file);

// Creates a directory for files of the store, whose parent exists; one that is there already
// is fine. Where none above it is known to the store it becomes so, by a file in it of which
// `atrest1_is_reserved` tells: `atrest1_remove_directory` removes it with that file.
Atrest1 atrest1_create_directory(const struct Atrest1Store *store, const char *directory);

// Removes a directory with nothing in it but what the store put there.
Atrest1 atrest1_remove_directory(const struct Atrest1Store *store, const char *directory);

// Whether what has this name in a directory of the store is the library's: no engine lists,
// reads or removes it. A name, no path.
bool atrest1_is_reserved(const char *name);

// Makes creations, renames and removals in a directory durable.
Atrest1 atrest1_sync_directory(const struct Atrest1Store *store, const char *directory);

// Tells the store of a directory with files that `atrest1_encryptor_new` made headers for,
// under its absolute path: they are looked for there before a key is destroyed. Costs nothing
// if it is below one that is known. One that a store at another place registered, of which this
// is a copy or which was moved, is refused: `ATREST1_IDENTITY_MISMATCH`.
Atrest1 atrest1_register_directory(const struct Atrest1Store *store, const char *directory);

// The same, also for a directory that a store at another place registered: this store was moved,
// or the directory was restored. Never where that one still uses it: each would rewrite the
// other's files and destroy its keys.
Atrest1 atrest1_take_over_directory(const struct Atrest1Store *store,
                                    const char *directory);

// Makes a new key file, for a customer's key `file://PATH`. `file` must not exist.
Atrest1 atrest1_generate_key_file(const char *file);

// The version of the interface that the library has: at least the ATREST1_ABI a program was
// compiled with, or functions are missing.
uint32_t atrest1_abi(void);

// The version of the library.
const char *atrest1_version(void);

// Opens the store whose keyring is in `directory`, with the customer's key `cmek`: a key URI
// such as `file:///etc/app/cmek.key`, or several with spaces between to open a store that has
// several, with mode=open or mode=read-only alone.
//
// `options` may be NULL, or is a list such as "mode=open;check_interval_s=60":
//
//   mode                   open, create, open-or-create (the default) or read-only
//   store_id               refuse another store than this one
//   slot                   the name of the key to ask first
//   check_interval_s       between two checks of access to the customer's key: 300
//   confirmations          denials in a row before keys are withdrawn: 3
//   confirm_over_s         shortest time between the first and the last of them: 30
//   unreachable_grace_s    how long a key service may not answer: 3600
//   recovery_interval_s    between two checks while access is lost: 60
//   kms_deadline_s         longest time for the calls of one operation: 15
//
// and, for a store that is created; another keeps its own:
//
//   integrity              confidential (the default) or authenticated, or by kind:
//                          authenticated,table=confidential. Where it is authenticated, files
//                          in suite 1 are refused
//   allow_plaintext        true: files from before encryption can be read
//   rotation_period_s      age at which a data key is replaced: 30 days
//   rotation_bytes         bytes after which it is
Atrest1 atrest1_store_open(const char *directory,
                           const char *cmek,
                           const char *options,
                           struct Atrest1Store **store);

// Frees a store, whatever is returned, and commits what is counted of its keys' use. Files
// that are open go on; the store stays open, and watched, until the last of them is freed.
Atrest1 atrest1_store_close(struct Atrest1Store *store);

// The same for a program that does not ask whether it succeeded.
void atrest1_store_free(struct Atrest1Store *store);

// Starts a new data key: files created from now on are under it. Old files are read as before.
// Its 16 bytes of id go to `data_key_id`, unless that is NULL.
Atrest1 atrest1_store_rotate(const struct Atrest1Store *store, uint8_t *data_key_id);

// What the store tells of itself, as one JSON object: `store_id`, `store_key_id`, `generation`,
// `written_ns`, `slots`, `unlocked`, `settings`, `data_keys`, `history` and `access`. It is
// freed by `atrest1_string_free`.
Atrest1 atrest1_store_status_json(const struct Atrest1Store *store, char **json);

// Frees a string that this library made.
void atrest1_string_free(char *string);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* ATREST_H */
