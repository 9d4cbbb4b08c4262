// The file system over a store that is open already.
#pragma once

#include <rocksdb/file_system.h>

#include "store.h"

namespace atrest_rocksdb {

std::shared_ptr<FileSystem> NewFileSystem(std::shared_ptr<Atrest1Store> store);

}  // namespace atrest_rocksdb
