/* A store in a directory, one table in it, a rotation. Usage: files DIRECTORY KEY-FILE */
#include <atrest.h>
#include <stdio.h>
#include <stdlib.h>

static void check(Atrest1 code)
{
    if (code != ATREST1_OK) {
        fprintf(stderr, "%s: %s\n", atrest1_code_name(code), atrest1_error_text());
        exit(1);
    }
}

int main(int argc, char **argv)
{
    char cmek[4096], table[4096], block[5], *status;
    Atrest1Store *store;
    Atrest1Writer *writer;
    Atrest1Reader *reader;
    size_t count;

    if (argc != 3)
        return 2;
    snprintf(cmek, sizeof cmek, "file://%s", argv[2]);
    snprintf(table, sizeof table, "%s/000017.sst", argv[1]);
    check(atrest1_generate_key_file(argv[2]));
    check(atrest1_store_open(argv[1], cmek, "integrity=authenticated", &store));

    check(atrest1_writer_create(store, table, 1, 17, 0, &writer));
    check(atrest1_writer_append(writer, (const uint8_t *)"a block of the table", 20));
    check(atrest1_writer_finish(writer, true)); /* its content is durable */
    atrest1_writer_free(writer);
    check(atrest1_sync_directory(store, argv[1])); /* and its name */

    check(atrest1_store_rotate(store, NULL)); /* new files have a new key, old ones stay */
    check(atrest1_reader_open(store, table, 1, 17, &reader));
    check(atrest1_reader_read_at(reader, 2, (uint8_t *)block, sizeof block, &count));
    printf("%.*s\n", (int)count, block);
    atrest1_reader_free(reader);

    check(atrest1_store_status_json(store, &status));
    printf("%s\n", status);
    atrest1_string_free(status);
    check(atrest1_store_close(store));
    return 0;
}
