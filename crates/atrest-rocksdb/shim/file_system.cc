// RocksDB's files in the authenticated suites: a FileSystem named "atrest" in the object
// registry. Tables and blobs are in chunks, written once and readable when they are closed. All
// else is in frames, one for each append, for RocksDB leaves small files without closing them.

#include "file_system.h"

#include <rocksdb/utilities/object_registry.h>

#include <atomic>
#include <cstring>
#include <mutex>

namespace atrest_rocksdb {
namespace {

constexpr uint32_t kChunks = 2, kFrames = 3;
// Who reads a byte of a frame decrypts all of it, and RocksDB reads logs 32 KiB at a time. What is
// flushed or copied may come in a MiB.
constexpr size_t kFrameMax = 64 << 10;
// In the options of who reads a log to recover from it, and not to copy it.
constexpr char kRecovers[] = "atrest-recovers";

using StorePointer = std::shared_ptr<Atrest1Store>;

IOStatus Done(Atrest1 code, const std::string& file) {
  return code == ATREST1_OK ? IOStatus::OK() : Failed<IOStatus>(code, file);
}

IOStatus Refused(const std::string& file, const char* what) {
  return IOStatus::NotSupported(file, what);
}

class Reader {
 public:
  explicit Reader(std::string file) : file_(std::move(file)) {}
  ~Reader() { atrest1_reader_free(reader_); }
  Reader(const Reader&) = delete;

  IOStatus Open(const StorePointer& store) {
    store_ = store;
    Atrest1Reader* reader;
    return Done(Look(&reader), file_);
  }

  IOStatus Length(uint64_t* length) const {
    *length = 0;
    Atrest1Reader* reader;
    const Atrest1 code = Begun(&reader);
    if (reader == nullptr) return Done(code, file_);
    return Done(atrest1_reader_len(reader, length), file_);
  }

  IOStatus Read(uint64_t offset, size_t size, Slice* result, char* scratch) const {
    size_t count = 0;
    *result = Slice(scratch, 0);
    Atrest1Reader* reader;
    const Atrest1 code = Begun(&reader);
    if (reader == nullptr) return Done(code, file_);
    const IOStatus status = Done(
        atrest1_reader_read_at(reader, offset, reinterpret_cast<uint8_t*>(scratch), size, &count),
        file_);
    if (status.ok()) *result = Slice(scratch, count);
    return status;
  }

  // Of a log whose good part does not end as a crash ends it, but looks like a shorter log.
  IOStatus Damage() const {
    Atrest1Reader* reader;
    Atrest1 code = Begun(&reader);
    if (lost_) return IOStatus::Corruption(file_, "the header is lost");
    if (reader == nullptr) return Done(code, file_);
    Atrest1Torn torn;
    code = atrest1_reader_torn(reader, &torn);
    if (code != ATREST1_OK) return Done(code, file_);
    const bool damaged = torn != ATREST1_TORN_NO && torn != ATREST1_TORN_CUT &&
                         torn != ATREST1_TORN_ZEROS;
    return damaged ? IOStatus::Corruption(file_, "the log is damaged here") : IOStatus::OK();
  }

 private:
  // None before the file has its first bytes: who follows a log may have it open by then.
  Atrest1 Begun(Atrest1Reader** reader) const {
    *reader = reader_;
    if (*reader != nullptr) return ATREST1_OK;
    const std::lock_guard<std::mutex> lock(looking_);
    *reader = reader_;
    if (*reader != nullptr) return ATREST1_OK;
    const Atrest1 code = Look(reader);
    // Who has a file open goes on when it is removed.
    return code == ATREST1_IO_NOT_FOUND ? ATREST1_OK : code;
  }

  Atrest1 Look(Atrest1Reader** reader) const {
    *reader = nullptr;
    const Atrest1 code = atrest1_reader_open(store_.get(), file_.c_str(), 0, 0, reader);
    // A crash between a file's creation and its first bytes: nothing was ever readable in it. It may
    // have been, where other bytes are behind a header of zeros.
    lost_ = code == ATREST1_TRUNCATED_HEADER && HasBytesBehindHeader(file_);
    if (code == ATREST1_OK) reader_ = *reader;
    return code == ATREST1_EMPTY_FILE || code == ATREST1_TRUNCATED_HEADER ? ATREST1_OK : code;
  }

  const std::string file_;
  StorePointer store_;
  mutable std::mutex looking_;
  mutable std::atomic<Atrest1Reader*> reader_{nullptr};
  mutable std::atomic<bool> lost_{false};
};

class Sequential : public FSSequentialFile {
 public:
  Sequential(const std::string& file, const FileOptions& options)
      : reader_(file), recovers_(options.io_options.property_bag.count(kRecovers) > 0) {}

  IOStatus Read(size_t size, const IOOptions&, Slice* result, char* scratch,
                IODebugContext*) override {
    IOStatus status = reader_.Read(offset_, size, result, scratch);
    const size_t count = result->size();
    if (!status.ok() || size == 0) return status;
    uint64_t length = 0;
    if (count == size && !recovers_) status = reader_.Length(&length);
    // Who copies a log asks for no more than its good part, and would not meet the damage.
    const bool copied = count == size && !recovers_ && offset_ + count == length;
    if (status.ok() && (count < size || copied)) status = reader_.Damage();
    if (status.ok()) {
      offset_ += count;
      return status;
    }
    *result = Slice(scratch, 0);
    if (copied || count == 0) return status;
    // A read that falls short is the end to RocksDB, and of one that fails it takes nothing. So it
    // gets the good bytes, then zeros, which it skips, and the error when it reads on.
    memset(scratch + count, 0, size - count);
    *result = Slice(scratch, size);
    offset_ += count;
    return IOStatus::OK();
  }

  IOStatus Skip(uint64_t size) override {
    uint64_t length;
    const IOStatus status = reader_.Length(&length);
    if (status.ok()) offset_ += std::min(size, length - std::min(length, offset_));
    return status;
  }

  Reader reader_;

 private:
  const bool recovers_;
  uint64_t offset_ = 0;
};

class RandomAccess : public FSRandomAccessFile {
 public:
  RandomAccess(const std::string& file, const FileOptions&) : reader_(file) {}

  IOStatus Read(uint64_t offset, size_t size, const IOOptions&, Slice* result, char* scratch,
                IODebugContext*) const override {
    IOStatus status = reader_.Read(offset, size, result, scratch);
    if (status.ok() && result->size() < size) status = reader_.Damage();
    if (!status.ok()) *result = Slice(scratch, 0);
    return status;
  }

  Reader reader_;
};

class Writable : public FSWritableFile {
 public:
  Writable(std::string file, Atrest1Writer* writer, bool frames)
      : file_(std::move(file)), writer_(writer), frames_(frames) {}
  ~Writable() override {
    // What RocksDB leaves without closing it is in the file. Of a table nothing would be readable.
    if (frames_ && !closed_) atrest1_writer_finish(writer_, false);
    atrest1_writer_free(writer_);
  }

  IOStatus Append(const Slice& data, const IOOptions&, IODebugContext*) override {
    if (closed_) return Refused(file_, "nothing is appended to a file that has its end");
    const auto* bytes = reinterpret_cast<const uint8_t*>(data.data());
    size_t left = data.size();
    while (left > 0) {
      const size_t now = frames_ ? std::min(left, kFrameMax) : left;
      const Atrest1 code = atrest1_writer_append(writer_, bytes, now);
      if (code != ATREST1_OK) return Done(code, file_);
      bytes += now;
      left -= now;
      size_ += now;
    }
    return IOStatus::OK();
  }
  IOStatus Append(const Slice& data, const IOOptions& options, const DataVerificationInfo&,
                  IODebugContext* debug) override {
    return Append(data, options, debug);
  }
  IOStatus Flush(const IOOptions&, IODebugContext*) override {
    return closed_ ? IOStatus::OK() : Done(atrest1_writer_flush(writer_), file_);
  }
  // The end of a table: what it consists of to its last chunk is there only then, and who copies
  // one asks for this and not for how closing it went.
  IOStatus Sync(const IOOptions& options, IODebugContext* debug) override {
    durable_ = true;
    return frames_ ? Done(atrest1_writer_sync(writer_), file_) : Close(options, debug);
  }
  IOStatus Close(const IOOptions&, IODebugContext*) override {
    if (closed_) return IOStatus::OK();
    const Atrest1 code = atrest1_writer_finish(writer_, durable_);
    closed_ = code == ATREST1_OK;
    return Done(code, file_);
  }
  // To the length it has; RocksDB asks for that before it closes a file.
  IOStatus Truncate(uint64_t size, const IOOptions&, IODebugContext*) override {
    return size == size_ ? IOStatus::OK() : Refused(file_, "nothing is cut off");
  }
  uint64_t GetFileSize(const IOOptions&, IODebugContext*) override { return size_; }
  // RocksDB makes its log durable in one thread while another one appends to it.
  bool IsSyncThreadSafe() const override { return true; }

 private:
  const std::string file_;
  Atrest1Writer* const writer_;
  const bool frames_;
  std::atomic<bool> closed_{false};
  std::atomic<bool> durable_{false};
  // RocksDB asks for it at each append to its log.
  std::atomic<uint64_t> size_{0};
};

class Files : public FileSystemWrapper {
 public:
  explicit Files(StorePointer store)
      : FileSystemWrapper(FileSystem::Default()), store_(std::move(store)) {
    RegisterOptions(&options_, &TypeInfo());
  }

  static const char* kClassName() { return "atrest"; }
  const char* Name() const override { return kClassName(); }

  Status PrepareOptions(const ConfigOptions& config) override {
    const Status status = store_ == nullptr ? OpenStore(options_, &store_) : Status::OK();
    return status.ok() ? FileSystemWrapper::PrepareOptions(config) : status;
  }

  FileOptions OptimizeForLogRead(const FileOptions& options) const override {
    FileOptions recovers = FileSystemWrapper::OptimizeForLogRead(options);
    recovers.io_options.property_bag[kRecovers];
    return recovers;
  }
  IOStatus NewSequentialFile(const std::string& file, const FileOptions& options,
                             std::unique_ptr<FSSequentialFile>* result,
                             IODebugContext*) override {
    return Open<Sequential>(file, options, result);
  }
  IOStatus NewRandomAccessFile(const std::string& file, const FileOptions& options,
                               std::unique_ptr<FSRandomAccessFile>* result,
                               IODebugContext*) override {
    return Open<RandomAccess>(file, options, result);
  }

  IOStatus NewWritableFile(const std::string& file, const FileOptions& options,
                           std::unique_ptr<FSWritableFile>* result, IODebugContext*) override {
    if (options.use_mmap_writes) return IOStatus::InvalidArgument(file, "mapped writes");
    const Kind kind = KindOf(file);
    const bool frames = kind != kTable && kind != kBlob;
    const Atrest1 removed = atrest1_remove(store_.get(), file.c_str());
    if (removed != ATREST1_OK && removed != ATREST1_IO_NOT_FOUND) return Done(removed, file);
    Atrest1Writer* writer;
    const Atrest1 code = atrest1_writer_create(store_.get(), file.c_str(), kind, 0,
                                               frames ? kFrames : kChunks, &writer);
    if (code != ATREST1_OK) return Done(code, file);
    result->reset(new Writable(file, writer, frames));
    return IOStatus::OK();
  }
  // A recycled file is a new one: its old key is gone with it.
  IOStatus ReuseWritableFile(const std::string& file, const std::string& old,
                             const FileOptions& options, std::unique_ptr<FSWritableFile>* result,
                             IODebugContext* debug) override {
    const Atrest1 code = atrest1_remove(store_.get(), old.c_str());
    if (code != ATREST1_OK) return Done(code, old);
    return NewWritableFile(file, options, result, debug);
  }
  IOStatus ReopenWritableFile(const std::string& file, const FileOptions& options,
                              std::unique_ptr<FSWritableFile>* result,
                              IODebugContext* debug) override {
    if (!target()->FileExists(file, IOOptions(), debug).IsNotFound()) {
      return Refused(file, "nothing is appended to an old file: write a new one");
    }
    return NewWritableFile(file, options, result, debug);
  }
  IOStatus NewRandomRWFile(const std::string& file, const FileOptions&,
                           std::unique_ptr<FSRandomRWFile>*, IODebugContext*) override {
    return Refused(file, "nothing is written twice");
  }
  IOStatus Truncate(const std::string& file, size_t, const IOOptions&, IODebugContext*) override {
    return Refused(file, "nothing is cut off");
  }
  IOStatus NewMemoryMappedFileBuffer(const std::string& file,
                                     std::unique_ptr<MemoryMappedFileBuffer>*) override {
    return Refused(file, "a mapping would be of ciphertext");
  }
  // RocksDB's log is a file like any other.
  IOStatus NewLogger(const std::string& file, const IOOptions& options,
                     std::shared_ptr<Logger>* result, IODebugContext* debug) override {
    return FileSystem::NewLogger(file, options, result, debug);
  }

  IOStatus GetFileSize(const std::string& file, const IOOptions& options, uint64_t* size,
                       IODebugContext* debug) override {
    // Without it RocksDB removes nothing that it renamed to remove it later, readable or not.
    if (EndOf(file) == ".trash") return target()->GetFileSize(file, options, size, debug);
    Reader reader(file);
    const IOStatus status = reader.Open(store_);
    return status.ok() ? reader.Length(size) : status;
  }
  // Without what is the store's: RocksDB removes what it finds where a checkpoint was broken off.
  IOStatus GetChildren(const std::string& directory, const IOOptions& options,
                       std::vector<std::string>* result, IODebugContext* debug) override {
    const IOStatus status = target()->GetChildren(directory, options, result, debug);
    const auto reserved = [](const std::string& name) { return atrest1_is_reserved(name.c_str()); };
    result->erase(std::remove_if(result->begin(), result->end(), reserved), result->end());
    return status;
  }
  // A backup engine lists all of its backups' files, and a file that is broken is one backup's.
  IOStatus GetChildrenFileAttributes(const std::string& directory, const IOOptions& options,
                                     std::vector<FileAttributes>* result,
                                     IODebugContext* debug) override {
    std::vector<std::string> names;
    const IOStatus listed = GetChildren(directory, options, &names, debug);
    result->clear();
    for (const std::string& name : names) {
      const std::string file = directory + '/' + name;
      uint64_t size = 0;
      IOStatus status = GetFileSize(file, options, &size, debug);
      const bool broken = status.IsCorruption() || status.IsNotSupported();
      if (broken) status = target()->GetFileSize(file, options, &size, debug);
      // It was removed meanwhile.
      if (!status.ok() && FileExists(file, options, debug).IsNotFound()) continue;
      if (!status.ok()) return status;
      result->push_back({name, size});
    }
    return listed;
  }
  // The store puts a marker into the first directory of its files below no known one. RocksDB
  // makes that one first, and removes it by the store, which forgets it. The store makes it, so
  // that a name of its own is refused before anything is there.
  IOStatus CreateDir(const std::string& directory, const IOOptions& options,
                     IODebugContext* debug) override {
    const bool missing = target()->FileExists(directory, options, debug).IsNotFound();
    return missing ? Known(directory) : target()->CreateDir(directory, options, debug);
  }
  IOStatus CreateDirIfMissing(const std::string& directory, const IOOptions&,
                              IODebugContext*) override {
    return Known(directory);
  }
  IOStatus DeleteDir(const std::string& directory, const IOOptions&, IODebugContext*) override {
    return Done(atrest1_remove_directory(store_.get(), directory.c_str()), directory);
  }
  IOStatus DeleteFile(const std::string& file, const IOOptions&, IODebugContext*) override {
    return Done(atrest1_remove(store_.get(), file.c_str()), file);
  }
  IOStatus RenameFile(const std::string& from, const std::string& to, const IOOptions&,
                      IODebugContext*) override {
    return Done(atrest1_rename(store_.get(), from.c_str(), to.c_str()), from);
  }
  IOStatus LinkFile(const std::string& from, const std::string& to, const IOOptions&,
                    IODebugContext*) override {
    return Done(atrest1_link(store_.get(), from.c_str(), to.c_str()), from);
  }

 private:
  template <class File, class Result>
  IOStatus Open(const std::string& file, const FileOptions& options, Result* result) {
    if (options.use_mmap_reads) return IOStatus::InvalidArgument(file, "mapped reads");
    std::unique_ptr<File> opened(new File(file, options));
    const IOStatus status = opened->reader_.Open(store_);
    if (status.ok()) *result = std::move(opened);
    return status;
  }

  IOStatus Known(const std::string& directory) {
    return Done(atrest1_create_directory(store_.get(), directory.c_str()), directory);
  }

  StoreOptions options_;
  StorePointer store_;
};

const auto& registration = ObjectLibrary::Default()->AddFactory<FileSystem>(
    Files::kClassName(),
    [](const std::string&, std::unique_ptr<FileSystem>* guard, std::string*) {
      guard->reset(new Files(nullptr));
      return guard->get();
    });

}  // namespace

std::shared_ptr<FileSystem> NewFileSystem(StorePointer store) {
  return std::make_shared<Files>(std::move(store));
}

}  // namespace atrest_rocksdb
