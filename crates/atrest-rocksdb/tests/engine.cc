// An engine on RocksDB that does what it is told, line by line, and answers each with "ok" or
// what went wrong. Usage: engine FS-URI DIRECTORY OPTIONS
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/sst_file_manager.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/utilities/backup_engine.h>
#include <rocksdb/utilities/checkpoint.h>

#include <iostream>
#include <memory>
#include <sstream>

using namespace rocksdb;

namespace {

class NoLog : public Logger {
 public:
  using Logger::Logv;
  void Logv(const char*, va_list) override {}
};

struct Engine {
  Options options;
  std::string directory;
  std::unique_ptr<DB> db;

  Status Open() {
    db.reset();
    DB* opened;
    const Status status = DB::Open(options, directory, &opened);
    if (status.ok()) db.reset(opened);
    return status;
  }
};

std::string Key(long number) {
  char key[32];
  snprintf(key, sizeof key, "key-%08ld", number);
  return key;
}

std::string Value(const std::string& tag, long number) {
  return tag + " of record " + std::to_string(number) + std::string(60, '.');
}

Status Put(Engine& engine, long from, long count, const std::string& tag) {
  for (long i = from; i < from + count; i++) {
    const Status status = engine.db->Put(WriteOptions(), Key(i), Value(tag, i));
    if (!status.ok()) return status;
  }
  return Status::OK();
}

// From the files: nothing stays in the block cache.
Status Get(Engine& engine, long from, long count, const std::string& tag) {
  ReadOptions uncached;
  uncached.fill_cache = false;
  std::unique_ptr<Iterator> found(engine.db->NewIterator(uncached));
  found->Seek(Key(from));
  for (long i = from; i < from + count; i++, found->Next()) {
    if (!found->Valid()) return found->status().ok() ? Status::NotFound(Key(i)) : found->status();
    if (found->key() != Key(i)) return Status::NotFound(Key(i));
    if (found->value() != Value(tag, i)) return Status::Corruption("another value", Key(i));
  }
  return Status::OK();
}

// A secondary that is opened before the log has its first record.
Status Follow(Engine& engine, const std::string& path, long from, long count,
              const std::string& tag) {
  Engine follower{engine.options, engine.directory, nullptr};
  follower.options.max_open_files = -1;
  DB* opened;
  Status status = DB::OpenAsSecondary(follower.options, follower.directory, path, &opened);
  if (!status.ok()) return status;
  follower.db.reset(opened);
  for (int part = 0; status.ok() && part < 2; part++, from += count) {
    status = Put(engine, from, count, tag);
    if (status.ok()) status = opened->TryCatchUpWithPrimary();
    if (status.ok()) status = Get(follower, from, count, tag);
  }
  return status;
}

// Writes without end, and says which record is acknowledged.
Status Acknowledge(Engine& engine, long from, const std::string& tag) {
  for (long i = from;; i++) {
    const Status status = Put(engine, i, 1, tag);
    if (!status.ok()) return status;
    std::cout << i << std::endl;
  }
}

Status Checkpoint(Engine& engine, const std::string& to) {
  rocksdb::Checkpoint* made;
  Status status = rocksdb::Checkpoint::Create(engine.db.get(), &made);
  if (!status.ok()) return status;
  std::unique_ptr<rocksdb::Checkpoint> checkpoint(made);
  return checkpoint->CreateCheckpoint(to);
}

// What a checkpoint leaves that is killed in the middle.
Status HalfCheckpoint(Engine& engine, const std::string& to) {
  Env* const env = engine.options.env;
  Status status = env->CreateDir(to + ".tmp");
  if (status.ok()) status = WriteStringToFile(env, "half", to + ".tmp/CURRENT");
  std::vector<Env::FileAttributes> files;
  if (status.ok()) status = env->GetChildrenFileAttributes(to + ".tmp", &files);
  if (!status.ok()) return status;
  const bool alone = files.size() == 1 && files[0].name == "CURRENT" && files[0].size_bytes == 4;
  return alone ? status : Status::Corruption("RocksDB sees what is the store's");
}

Status Backup(Engine& engine, const std::string& to, const std::string& restored) {
  BackupEngine* made;
  Status status = BackupEngine::Open(engine.options.env, BackupEngineOptions(to), &made);
  if (!status.ok()) return status;
  std::unique_ptr<BackupEngine> backup(made);
  status = backup->CreateNewBackup(engine.db.get(), true);
  return status.ok() ? backup->RestoreDBFromLatestBackup(restored, restored) : status;
}

// A backup of its own, of the logs as they are.
Status BackUp(Engine& engine, const std::string& to) {
  BackupEngine* made;
  Status status = BackupEngine::Open(engine.options.env, BackupEngineOptions(to), &made);
  if (!status.ok()) return status;
  return std::unique_ptr<BackupEngine>(made)->CreateNewBackup(engine.db.get());
}

Status Restore(Engine& engine, const std::string& from, BackupID id, const std::string& to) {
  BackupEngine* made;
  Status status = BackupEngine::Open(engine.options.env, BackupEngineOptions(from), &made);
  if (!status.ok()) return status;
  return std::unique_ptr<BackupEngine>(made)->RestoreDBFromBackup(id, to, to);
}

Status Ingest(Engine& engine, const std::string& file, long from, long count,
              const std::string& tag, const std::string& number) {
  SstFileWriter writer(EnvOptions(), engine.options);
  Status status = writer.Open(file);
  for (long i = from; status.ok() && i < from + count; i++) {
    status = writer.Put(Key(i), Value(tag, i));
  }
  if (status.ok()) status = writer.Finish();
  IngestExternalFileOptions options;
  options.write_global_seqno = number == "number";
  return status.ok() ? engine.db->IngestExternalFile({file}, options) : status;
}

// So many records at least, one after the other from the first, and then what is wrong.
Status Updates(Engine& engine, long count) {
  std::unique_ptr<TransactionLogIterator> updates;
  Status status = engine.db->GetUpdatesSince(1, &updates);
  if (!status.ok()) return status;
  long found = 0;
  for (; updates->Valid(); updates->Next()) {
    if (updates->GetBatch().sequence == static_cast<uint64_t>(found) + 1) found++;
  }
  return found < count ? Status::Aborted(std::to_string(found)) : updates->status();
}

Status RandomWrite(Engine& engine, const std::string& file) {
  std::unique_ptr<RandomRWFile> opened;
  const Status status = engine.options.env->NewRandomRWFile(file, &opened, EnvOptions());
  return status.ok() ? opened->Write(0, "twice") : status;
}

// As who copies a table writes it, and closes it without a look at how that went.
Status Table(Engine& engine, const std::string& file) {
  Env* const env = engine.options.env;
  std::unique_ptr<WritableFile> opened;
  Status status = env->NewWritableFile(file, &opened, EnvOptions());
  if (status.ok()) status = opened->Append("table");
  if (status.ok()) status = opened->Sync();
  if (!status.ok()) return status;
  const bool ended = opened->Append("more").IsNotSupported();
  status = opened->Flush();
  opened.reset();
  std::string found;
  if (status.ok()) status = ReadFileToString(env, file, &found);
  if (!status.ok()) return status;
  return ended && found == "table" ? status : Status::Corruption("another table");
}

Status Append(Engine& engine, const std::string& file) {
  std::unique_ptr<WritableFile> opened;
  const Status status = engine.options.env->ReopenWritableFile(file, &opened, EnvOptions());
  return status.ok() ? opened->Append("more") : status;
}

Status Run(Engine& engine, std::istream& line) {
  std::string command, tag, path, other;
  long from = 0, count = 0;
  line >> command;
  if (command == "reopen") return engine.Open();
  if (engine.db == nullptr) return Status::Aborted("no database is open");
  if (command == "put") return line >> from >> count >> tag, Put(engine, from, count, tag);
  if (command == "get") return line >> from >> count >> tag, Get(engine, from, count, tag);
  if (command == "acknowledge") return line >> from >> tag, Acknowledge(engine, from, tag);
  if (command == "flush") return engine.db->Flush(FlushOptions());
  if (command == "compact") {
    CompactRangeOptions all;
    all.bottommost_level_compaction = BottommostLevelCompaction::kForce;
    return engine.db->CompactRange(all, nullptr, nullptr);
  }
  if (command == "follow") {
    return line >> path >> from >> count >> tag, Follow(engine, path, from, count, tag);
  }
  if (command == "updates") return line >> count, Updates(engine, count);
  if (command == "sync-log") return engine.db->FlushWAL(true);
  if (command == "resume") return engine.db->Resume();
  if (command == "checkpoint") return line >> path, Checkpoint(engine, path);
  if (command == "half-checkpoint") return line >> path, HalfCheckpoint(engine, path);
  if (command == "destroy") return line >> path, DestroyDB(path, engine.options);
  if (command == "backup") return line >> path >> other, Backup(engine, path, other);
  if (command == "back-up") return line >> path, BackUp(engine, path);
  if (command == "restore") {
    return line >> path >> from >> other, Restore(engine, path, from, other);
  }
  if (command == "ingest") {
    line >> path >> from >> count >> tag >> other;
    return Ingest(engine, path, from, count, tag, other);
  }
  if (command == "random-write") return line >> path, RandomWrite(engine, path);
  if (command == "table") return line >> path, Table(engine, path);
  if (command == "append") return line >> path, Append(engine, path);
  return Status::InvalidArgument(command);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  Env* env;
  std::shared_ptr<Env> guard;
  Status status = Env::CreateFromUri(ConfigOptions(), "", argv[1], &env, &guard);
  Engine engine;
  if (status.ok()) status = GetOptionsFromString(Options(), argv[3], &engine.options);
  engine.options.env = env;
  engine.options.create_if_missing = true;
  engine.options.info_log = std::make_shared<NoLog>();
  if (getenv("TRASH") != nullptr) {
    // Files are renamed, and removed one after the other.
    engine.options.sst_file_manager.reset(NewSstFileManager(env, nullptr, "", 1 << 30));
  }
  engine.directory = argv[2];
  if (status.ok()) status = engine.Open();
  std::cout << (status.ok() ? "ok" : status.ToString()) << std::endl;
  if (!status.ok()) return 1;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    status = Run(engine, words);
    std::cout << (status.ok() ? "ok" : status.ToString()) << std::endl;
  }
  return 0;
}
