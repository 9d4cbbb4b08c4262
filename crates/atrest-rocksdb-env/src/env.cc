// The Env that the crate gives to RocksDB's Rust bindings.
#include <rocksdb/c.h>
#include <rocksdb/env.h>

#include "file_system.h"

// rocksdb_env_t, which RocksDB's C interface shows to nobody.
struct Mirror {
  rocksdb::Env* env;
  bool is_default;
};

// Takes the store. nullptr if rocksdb_env_t is another one than here.
extern "C" rocksdb_env_t* atrest_rocksdb_env(Atrest1Store* store) noexcept {
  std::shared_ptr<Atrest1Store> owned(store, atrest1_store_free);
  rocksdb_env_t* const made = rocksdb_create_default_env();
  auto* const mirror = reinterpret_cast<Mirror*>(made);
  if (mirror->env != rocksdb::Env::Default() || !mirror->is_default) {
    rocksdb_env_destroy(made);
    return nullptr;
  }
  auto files = atrest_rocksdb::NewFileSystem(std::move(owned));
  *mirror = {rocksdb::NewCompositeEnv(files).release(), false};
  return made;
}
