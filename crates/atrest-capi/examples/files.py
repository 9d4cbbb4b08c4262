#!/usr/bin/env python3
"""A store through ctypes. Usage: files.py LIBRARY DIRECTORY KEY-FILE"""
import ctypes
import json
import sys

library, directory, key_file = sys.argv[1:]
atrest = ctypes.CDLL(library)
atrest.atrest1_error_text.restype = ctypes.c_char_p
pointer, u32, u64, size = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_size_t


def call(name, *arguments):
    if getattr(atrest, f"atrest1_{name}")(*arguments) != 0:
        raise OSError(atrest.atrest1_error_text().decode())


def made(name, *arguments):
    handle = pointer()
    call(name, *arguments, ctypes.byref(handle))
    return handle


call("generate_key_file", key_file.encode())
cmek = f"file://{key_file}".encode()
store = made("store_open", directory.encode(), cmek, b"mode=create;integrity=authenticated")

path = f"{directory}/000017.sst".encode()
writer = made("writer_create", store, path, u32(1), u64(17), u32(0))
call("writer_append", writer, b"a block of the table", size(20))
call("writer_finish", writer, ctypes.c_bool(True))
atrest.atrest1_writer_free(writer)

reader = made("reader_open", store, path, u32(1), u64(17))
block, count = ctypes.create_string_buffer(5), size()
call("reader_read_at", reader, u64(2), block, size(5), ctypes.byref(count))
atrest.atrest1_reader_free(reader)
print(block.raw[: count.value].decode())

text = made("store_status_json", store)
status = json.loads(ctypes.string_at(text))
atrest.atrest1_string_free(text)
print(status["access"]["state"], len(status["data_keys"]))
call("store_close", store)
