// RocksDB's files in counter mode: an EncryptionProvider named "atrest" in the object registry.
//
// RocksDB puts the prefix in front of each file and shifts sizes and offsets by itself. What
// is left to decide here is when a file may be encrypted: while it is new, from its first
// byte to its last, and never again.

#include <dirent.h>
#include <fcntl.h>
#include <rocksdb/env_encryption.h>
#include <rocksdb/utilities/object_registry.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cstring>
#include <set>

#include "store.h"

namespace atrest_rocksdb {
namespace {

struct Freed {
  void operator()(Atrest1Encryptor* encryptor) const { atrest1_encryptor_free(encryptor); }
  void operator()(Atrest1Decryptor* decryptor) const { atrest1_decryptor_free(decryptor); }
};
using Encryptor = std::unique_ptr<Atrest1Encryptor, Freed>;
using Decryptor = std::unique_ptr<Atrest1Decryptor, Freed>;

// One file: new and written, or there and read, or cut off by a crash and empty.
class Stream : public BlockAccessCipherStream {
 public:
  Stream(std::string file, Encryptor encryptor, Decryptor decryptor, bool lost = false)
      : file_(std::move(file)),
        encryptor_(std::move(encryptor)),
        decryptor_(std::move(decryptor)),
        lost_(lost) {}

  size_t BlockSize() override { return 1; }

  Status Encrypt(uint64_t offset, char* data, size_t size) override {
    if (encryptor_ == nullptr) {
      return Status::NotSupported(file_, "an old file's key encrypts nothing");
    }
    return Done(atrest1_encrypt_at(encryptor_.get(), offset - ATREST1_HEADER_LEN,
                                   reinterpret_cast<uint8_t*>(data), size));
  }

  Status Decrypt(uint64_t offset, char* data, size_t size) override {
    if (size == 0) return Status::OK();
    if (lost_) {
      if (HasBytesBehindHeader(file_)) return Status::Corruption(file_, "the header is lost");
      // Nothing reached the disk: RocksDB finds zeros, and knows them.
      memset(data, 0, size);
      return Status::OK();
    }
    if (decryptor_ == nullptr) {
      return Status::NotSupported(file_, "a file that is being written");
    }
    return Done(atrest1_decrypt_at(decryptor_.get(), offset - ATREST1_HEADER_LEN,
                                   reinterpret_cast<uint8_t*>(data), size));
  }

 protected:
  // For block ciphers; nobody calls them, for the two above do not.
  void AllocateScratch(std::string&) override {}
  Status EncryptBlock(uint64_t, char*, char*) override { return Status::NotSupported(); }
  Status DecryptBlock(uint64_t, char*, char*) override { return Status::NotSupported(); }

 private:
  Status Done(Atrest1 code) { return code == ATREST1_OK ? Status::OK() : Failed<Status>(code, file_); }

  const std::string file_;
  const Encryptor encryptor_;
  const Decryptor decryptor_;
  // It has no header.
  const bool lost_;
};

// Whether this process has the file open for appending. RocksDB asks for a new prefix when it
// reopens a file, too, and would append it to the old content.
bool IsReopened(const struct stat& file) {
  DIR* descriptors = opendir("/proc/self/fd");
  if (descriptors == nullptr) return true;
  bool found = false;
  while (const dirent* entry = readdir(descriptors)) {
    const int descriptor = atoi(entry->d_name);
    struct stat other;
    if (fstat(descriptor, &other) == 0 && other.st_dev == file.st_dev &&
        other.st_ino == file.st_ino && (fcntl(descriptor, F_GETFL) & O_APPEND) != 0) {
      found = true;
    }
  }
  closedir(descriptors);
  return found;
}

// The file that this thread asked a new prefix for. RocksDB writes the prefix, then asks for
// the stream, in one call and one thread.
struct Pending {
  char prefix[ATREST1_HEADER_LEN];
  Encryptor encryptor;
};
thread_local std::unique_ptr<Pending> pending;

class Provider : public EncryptionProvider {
 public:
  Provider() { RegisterOptions(&options_, &TypeInfo()); }

  static const char* kClassName() { return "atrest"; }
  const char* Name() const override { return kClassName(); }
  size_t GetPrefixLength() const override { return ATREST1_HEADER_LEN; }

  Status PrepareOptions(const ConfigOptions& config) override {
    const Status status = OpenStore(options_, &store_);
    return status.ok() ? EncryptionProvider::PrepareOptions(config) : status;
  }

  Status AddCipher(const std::string&, const char*, size_t, bool) override {
    return Status::NotSupported("keys come from the store");
  }

  Status CreateNewPrefix(const std::string& file, char* prefix, size_t length) const override {
    pending.reset();
    if (store_ == nullptr || length != ATREST1_HEADER_LEN) return Status::InvalidArgument(file);
    struct stat now;
    if (stat(file.c_str(), &now) == 0 && now.st_size > 0 &&
        (KindOf(file) != kLog || IsReopened(now))) {
      return Status::NotSupported(file, "nothing is appended to an old file: write a new one");
    }
    Status status = Register(file.substr(0, file.find_last_of('/') + 1));
    if (!status.ok()) return status;
    Atrest1Encryptor* encryptor;
    const Atrest1 code = atrest1_encryptor_new(store_.get(), KindOf(file), 0,
                                               reinterpret_cast<uint8_t*>(prefix), &encryptor);
    if (code != ATREST1_OK) return Failed<Status>(code, file);
    pending.reset(new Pending);
    pending->encryptor.reset(encryptor);
    memcpy(pending->prefix, prefix, length);
    return Status::OK();
  }

  Status CreateCipherStream(const std::string& file, const EnvOptions&, Slice& prefix,
                            std::unique_ptr<BlockAccessCipherStream>* result) override {
    const std::unique_ptr<Pending> created = std::move(pending);
    if (store_ == nullptr) return Status::InvalidArgument(file, "the store is not open");
    if (created != nullptr && prefix == Slice(created->prefix, ATREST1_HEADER_LEN)) {
      result->reset(new Stream(file, std::move(created->encryptor), nullptr));
      return Status::OK();
    }
    Atrest1Decryptor* decryptor;
    const Atrest1 code =
        atrest1_decryptor_new(store_.get(), reinterpret_cast<const uint8_t*>(prefix.data()),
                              prefix.size(), 0, 0, &decryptor);
    // A crash between a file's creation and its first bytes: nothing was ever readable in it.
    const bool torn = code == ATREST1_EMPTY_FILE || code == ATREST1_TRUNCATED_HEADER;
    if (code != ATREST1_OK && !torn) return Failed<Status>(code, file);
    result->reset(new Stream(file, nullptr, Decryptor(decryptor), torn));
    return Status::OK();
  }

 private:
  // Before a key is destroyed the store looks for its files in every directory it knows.
  Status Register(const std::string& directory) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (registered_.count(directory) != 0) return Status::OK();
    char* path = realpath(directory.empty() ? "." : directory.c_str(), nullptr);
    if (path == nullptr) return Status::IOError(directory, strerror(errno));
    const Atrest1 code = atrest1_create_directory(store_.get(), path);
    free(path);
    if (code != ATREST1_OK) return Failed<Status>(code, directory);
    registered_.insert(directory);
    return Status::OK();
  }

  StoreOptions options_;
  std::shared_ptr<Atrest1Store> store_;
  mutable std::mutex mutex_;
  mutable std::set<std::string> registered_;
};

const auto& registration = ObjectLibrary::Default()->AddFactory<EncryptionProvider>(
    Provider::kClassName(),
    [](const std::string&, std::unique_ptr<EncryptionProvider>* guard, std::string*) {
      guard->reset(new Provider);
      return guard->get();
    });

}  // namespace
}  // namespace atrest_rocksdb
