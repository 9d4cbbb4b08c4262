// What the provider and the file system share: a store's options, opening it, errors, kinds.
#pragma once

#include <atrest.h>
#include <rocksdb/status.h>
#include <rocksdb/utilities/options_type.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

namespace atrest_rocksdb {

using namespace ROCKSDB_NAMESPACE;

// A Status or an IOStatus.
template <class S>
S Failed(Atrest1 code, const std::string& file) {
  const std::string text = std::string(atrest1_code_name(code)) + ": " + atrest1_error_text();
  switch (code) {
    case ATREST1_INVALID_ARGUMENT:
      return S::InvalidArgument(file, text);
    case ATREST1_NOT_SEQUENTIAL:
    case ATREST1_UNSUPPORTED_VERSION:
    case ATREST1_UNSUPPORTED_FEATURE:
    // A link to another file system, instead of which RocksDB copies.
    case ATREST1_IO_UNSUPPORTED:
      return S::NotSupported(file, text);
    case ATREST1_NOT_ENCRYPTED:
    case ATREST1_FOREIGN_FILE:
    case ATREST1_CORRUPT_HEADER:
    case ATREST1_UNKNOWN_KEY:
    case ATREST1_WRONG_KEY:
    case ATREST1_IDENTITY_MISMATCH:
    case ATREST1_SUITE_TOO_WEAK:
    case ATREST1_AUTHENTICATION:
    case ATREST1_KEY_DESTROYED:
      return S::Corruption(file, text);
    case ATREST1_IO_NOT_FOUND:
      return S::PathNotFound(file, text);
    case ATREST1_IO_FULL:
      return S::NoSpace(file, text);
    default:
      return S::IOError(file, text);
  }
}

// Whether anything but zeros is behind where a file's header would be: more than a crash leaves of a
// file that had nothing yet. What cannot be read counts.
inline bool HasBytesBehindHeader(const std::string& file) {
  const std::unique_ptr<FILE, int (*)(FILE*)> bytes(std::fopen(file.c_str(), "rbe"), std::fclose);
  if (!bytes || std::fseek(bytes.get(), ATREST1_HEADER_LEN, SEEK_SET) != 0) return true;
  std::array<char, 64 << 10> piece;
  size_t len;
  while ((len = std::fread(piece.data(), 1, piece.size(), bytes.get())) > 0) {
    if (std::any_of(piece.begin(), piece.begin() + len, [](char byte) { return byte != 0; })) return true;
  }
  return std::ferror(bytes.get()) != 0;
}

enum Kind : uint32_t { kTable = 1, kLog = 2, kManifest = 3, kBlob = 4, kOther = 5 };

inline std::string NameOf(const std::string& file) {
  return file.substr(file.find_last_of('/') + 1);
}

// With its dot.
inline std::string EndOf(const std::string& file) {
  const std::string name = NameOf(file);
  return name.substr(std::min(name.size(), name.find_last_of('.')));
}

inline Kind KindOf(const std::string& file) {
  // A backup's file is written under its name with this behind it.
  if (EndOf(file) == ".tmp") return KindOf(file.substr(0, file.size() - 4));
  const std::string name = NameOf(file), end = EndOf(file);
  if (end == ".sst" || end == ".ldb") return kTable;
  if (end == ".log" || name.compare(0, 3, "LOG") == 0) return kLog;
  if (name.compare(0, 9, "MANIFEST-") == 0) return kManifest;
  return end == ".blob" ? kBlob : kOther;
}

struct StoreOptions {
  static const char* kName() { return "AtrestOptions"; }
  std::string directory, cmek, policy;
};

inline const std::unordered_map<std::string, OptionTypeInfo>& TypeInfo() {
  static const std::unordered_map<std::string, OptionTypeInfo> info{
      {"directory", {offsetof(StoreOptions, directory), OptionType::kString}},
      {"cmek", {offsetof(StoreOptions, cmek), OptionType::kString}},
      {"policy", {offsetof(StoreOptions, policy), OptionType::kString}}};
  return info;
}

// A process opens a store once, however many Envs it has over it.
inline Status OpenStore(const StoreOptions& options, std::shared_ptr<Atrest1Store>* store) {
  static std::mutex mutex;
  static std::map<std::string, std::weak_ptr<Atrest1Store>> stores;
  const std::lock_guard<std::mutex> lock(mutex);
  auto& known = stores[options.directory + '\n' + options.cmek + '\n' + options.policy];
  *store = known.lock();
  if (*store != nullptr) return Status::OK();
  Atrest1Store* opened;
  const Atrest1 code = atrest1_store_open(options.directory.c_str(), options.cmek.c_str(),
                                          options.policy.c_str(), &opened);
  if (code != ATREST1_OK) return Failed<Status>(code, options.directory);
  known = *store = std::shared_ptr<Atrest1Store>(opened, atrest1_store_free);
  return Status::OK();
}

}  // namespace atrest_rocksdb
