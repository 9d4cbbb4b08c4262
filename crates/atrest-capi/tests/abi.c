/* Every function, every rule of the header. Usage: abi EMPTY-DIRECTORY */
#include <atrest.h>
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LEN 100000
#define THREADS 4

static char dir[2000], key[3000], cmek[4000], path[4000], other[4000];

#define CHECK(expression)                                                                  \
    do {                                                                                   \
        if (!(expression)) {                                                               \
            fprintf(stderr, "line %d: %s: %s\n", __LINE__, #expression,                    \
                    atrest1_error_text());                                                 \
            exit(1);                                                                       \
        }                                                                                  \
    } while (0)
#define IS(code, expression) CHECK((expression) == (code))
#define OK(expression) IS(ATREST1_OK, expression)

static const char *in(char *buffer, const char *name)
{
    snprintf(buffer, 4000, "%s/%s", dir, name);
    return buffer;
}

static uint8_t *data(void)
{
    uint8_t *bytes = malloc(LEN);
    CHECK(bytes != NULL);
    for (size_t i = 0; i < LEN; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 256);
    return bytes;
}

/* A file that an engine reads and writes by itself. */
static void contexts(const Atrest1Store *store)
{
    uint8_t header[ATREST1_HEADER_LEN], *plain = data(), *bytes = data(), *once = malloc(LEN);
    Atrest1Encryptor *encryptor;
    Atrest1Decryptor *decryptor;
    uint64_t position;

    CHECK(once != NULL);
    OK(atrest1_encryptor_new(store, 1, 9, header, &encryptor));
    OK(atrest1_encrypt_at(encryptor, 0, bytes, 1000));
    OK(atrest1_encrypt_at(encryptor, 1000, bytes + 1000, LEN - 1000));
    OK(atrest1_encrypt_at(encryptor, LEN, NULL, 0));
    CHECK(memcmp(bytes, plain, LEN) != 0);
    OK(atrest1_encryptor_position(encryptor, &position));
    CHECK(position == LEN);

    /* Nothing is encrypted twice, nor out of order. */
    memcpy(once, bytes, LEN);
    IS(ATREST1_NOT_SEQUENTIAL, atrest1_encrypt_at(encryptor, 0, bytes, 16));
    IS(ATREST1_NOT_SEQUENTIAL, atrest1_encrypt_at(encryptor, LEN - 1, bytes, 16));
    IS(ATREST1_NOT_SEQUENTIAL, atrest1_encrypt_at(encryptor, LEN + 1, bytes, 16));
    IS(ATREST1_NOT_SEQUENTIAL, atrest1_encrypt_at(encryptor, UINT64_MAX, bytes, 16));
    CHECK(memcmp(once, bytes, LEN) == 0);
    atrest1_encryptor_free(encryptor);

    OK(atrest1_decryptor_new(store, header, sizeof header, 1, 9, &decryptor));
    OK(atrest1_decrypt_at(decryptor, 500, bytes + 500, 70000));
    CHECK(memcmp(bytes + 500, plain + 500, 70000) == 0);
    OK(atrest1_decrypt_at(decryptor, 0, bytes, 500));
    CHECK(memcmp(bytes, plain, 70500) == 0);
    IS(ATREST1_FILE_TOO_LARGE, atrest1_decrypt_at(decryptor, UINT64_MAX - 3, bytes, 16));
    atrest1_decryptor_free(decryptor);

    /* What is not such a header. */
    IS(ATREST1_IDENTITY_MISMATCH,
       atrest1_decryptor_new(store, header, sizeof header, 2, 0, &decryptor));
    CHECK(decryptor == NULL);
    IS(ATREST1_IDENTITY_MISMATCH,
       atrest1_decryptor_new(store, header, sizeof header, 0, 8, &decryptor));
    IS(ATREST1_EMPTY_FILE, atrest1_decryptor_new(store, NULL, 0, 0, 0, &decryptor));
    IS(ATREST1_TRUNCATED_HEADER,
       atrest1_decryptor_new(store, header, sizeof header - 1, 0, 0, &decryptor));
    header[100] ^= 1;
    IS(ATREST1_CORRUPT_HEADER,
       atrest1_decryptor_new(store, header, sizeof header, 0, 0, &decryptor));
    memset(header, 'x', sizeof header);
    IS(ATREST1_NOT_ENCRYPTED,
       atrest1_decryptor_new(store, header, sizeof header, 0, 0, &decryptor));
    IS(ATREST1_INVALID_ARGUMENT, atrest1_encryptor_new(store, 7, 0, header, &encryptor));
    IS(ATREST1_INVALID_ARGUMENT, atrest1_encryptor_new(store, 1, 0, NULL, &encryptor));
    CHECK(encryptor == NULL);
    free(plain), free(bytes), free(once);
}

/* Files in each suite. */
static void files(const Atrest1Store *store)
{
    uint8_t *plain = data(), *bytes = malloc(LEN);
    uint64_t len;
    size_t count;

    CHECK(bytes != NULL);
    for (uint32_t suite = 0; suite <= 3; suite++) {
        Atrest1Writer *writer;
        Atrest1Reader *reader;
        in(path, "file"), in(other, "other");
        OK(atrest1_writer_create(store, path, 4, 7, suite, &writer));
        OK(atrest1_writer_append(writer, plain, 5));
        OK(atrest1_writer_append(writer, NULL, 0));
        OK(atrest1_writer_append(writer, plain + 5, LEN - 5));
        OK(atrest1_writer_position(writer, &len));
        CHECK(len == LEN);
        OK(atrest1_writer_flush(writer));
        OK(atrest1_writer_sync(writer));
        OK(atrest1_writer_finish(writer, suite % 2 == 0));
        IS(ATREST1_POISONED, atrest1_writer_append(writer, plain, 1));
        IS(ATREST1_POISONED, atrest1_writer_finish(writer, true));
        atrest1_writer_free(writer);
        IS(ATREST1_IO_EXISTS, atrest1_writer_create(store, path, 4, 7, suite, &writer));
        CHECK(writer == NULL);
        OK(atrest1_rename(store, path, other));
        OK(atrest1_link(store, other, path));
        OK(atrest1_sync_directory(store, dir));

        IS(ATREST1_IDENTITY_MISMATCH, atrest1_reader_open(store, path, 1, 7, &reader));
        CHECK(reader == NULL);
        OK(atrest1_reader_open(store, path, 4, 7, &reader));
        OK(atrest1_reader_len(reader, &len));
        CHECK(len == LEN);
        OK(atrest1_reader_written_len(reader, &len));
        CHECK(len == LEN);
        OK(atrest1_reader_read_at(reader, 3, bytes, LEN, &count));
        CHECK(count == LEN - 3 && memcmp(bytes, plain + 3, count) == 0);
        OK(atrest1_reader_read_at(reader, LEN + 1, bytes, LEN, &count));
        CHECK(count == 0);
        IS(ATREST1_INVALID_ARGUMENT, atrest1_reader_read_at(reader, 0, NULL, 1, &count));
        IS(ATREST1_INVALID_ARGUMENT, atrest1_reader_read_at(reader, 0, bytes, SIZE_MAX, &count));
        atrest1_reader_free(reader);
        if (suite != 0) { /* a changed byte */
            FILE *file = fopen(path, "r+b");
            CHECK(file && fseek(file, 5000, SEEK_SET) == 0);
            int byte = fgetc(file);
            CHECK(byte >= 0 && fseek(file, 5000, SEEK_SET) == 0 && fputc(byte ^ 0x55, file) >= 0);
            CHECK(fclose(file) == 0);
            Atrest1 opened = atrest1_reader_open(store, path, 0, 0, &reader);
            Atrest1 read = opened ? opened : atrest1_reader_read_at(reader, 0, bytes, LEN, &count);
            CHECK(suite == 1 ? read == ATREST1_OK && count == LEN
                             : read == ATREST1_AUTHENTICATION || count < LEN);
            Atrest1Torn torn = ATREST1_TORN_NO;
            if (opened == ATREST1_OK)
                OK(atrest1_reader_torn(reader, &torn));
            CHECK(torn == (suite == 3 ? ATREST1_TORN_AUTHENTICATION : ATREST1_TORN_NO));
            atrest1_reader_free(reader);
        }
        OK(atrest1_remove(store, path));
        OK(atrest1_remove(store, other));
        IS(ATREST1_IO_NOT_FOUND, atrest1_remove(store, other));
    }
    Atrest1Writer *writer;
    IS(ATREST1_INVALID_ARGUMENT, atrest1_writer_create(store, path, 1, 0, 4, &writer));
    IS(ATREST1_INVALID_ARGUMENT, atrest1_writer_create(store, NULL, 1, 0, 0, &writer));
    IS(ATREST1_INVALID_ARGUMENT, atrest1_writer_create(NULL, path, 1, 0, 0, &writer));
    IS(ATREST1_INVALID_ARGUMENT, atrest1_writer_create(store, path, 1, 0, 0, NULL));
    IS(ATREST1_INVALID_ARGUMENT,
       atrest1_writer_create(store, in(path, "KEYRING"), 1, 0, 0, &writer));
    free(plain), free(bytes);
}

struct shared {
    const Atrest1Reader *reader;
    const Atrest1Writer *writer;
};

static void *work(void *argument)
{
    const struct shared *shared = argument;
    uint8_t *plain = data(), bytes[1000];
    size_t count;

    for (uint64_t offset = 0; offset + 1000 < LEN; offset += 997) {
        OK(atrest1_reader_read_at(shared->reader, offset, bytes, 1000, &count));
        CHECK(count == 1000 && memcmp(bytes, plain + offset, 1000) == 0);
        OK(atrest1_writer_append(shared->writer, bytes, 1000));
        CHECK(atrest1_reader_read_at(shared->reader, 0, NULL, 1, &count) != ATREST1_OK);
        CHECK(strstr(atrest1_error_text(), "NULL") != NULL);
    }
    free(plain);
    return NULL;
}

/* One reader and one writer in several threads. */
static void threads(const Atrest1Store *store)
{
    uint8_t *plain = data();
    Atrest1Writer *writer;
    Atrest1Reader *reader;
    pthread_t all[THREADS];
    uint64_t len;

    OK(atrest1_writer_create(store, in(path, "shared"), 1, 0, 2, &writer));
    OK(atrest1_writer_append(writer, plain, LEN));
    OK(atrest1_writer_finish(writer, false));
    atrest1_writer_free(writer);
    OK(atrest1_reader_open(store, path, 0, 0, &reader));
    OK(atrest1_writer_create(store, in(path, "written"), 2, 0, 3, &writer));
    struct shared shared = {reader, writer};
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&all[i], NULL, work, &shared) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(all[i], NULL) == 0);
    OK(atrest1_writer_position(writer, &len));
    CHECK(len == THREADS * 1000 * ((LEN - 1001) / 997 + 1));
    atrest1_writer_free(writer);
    atrest1_reader_free(reader);
    free(plain);
}

static int changes;
static Atrest1Access last_access;

static void changed(void *user, Atrest1Access was, Atrest1Access is)
{
    CHECK(user == &changes && was != is);
    changes++;
    last_access = is;
}

/* The key is taken away and given back; then access is withdrawn on request. */
static void access_to_the_key(Atrest1Store *store)
{
    uint8_t header[ATREST1_HEADER_LEN], bytes[16] = {0};
    char away[4000];
    Atrest1Encryptor *encryptor;
    Atrest1Access access;

    OK(atrest1_encryptor_new(store, 1, 0, header, &encryptor));
    OK(atrest1_access_on_change(store, changed, &changes));
    OK(atrest1_access_check(store, &access));
    CHECK(access == ATREST1_ACCESS_ACTIVE && changes == 0);

    snprintf(away, sizeof away, "%s.away", key);
    CHECK(rename(key, away) == 0);
    for (int i = 0; i < 10 && access < ATREST1_ACCESS_REVOKED; i++)
        OK(atrest1_access_check(store, &access));
    CHECK(access >= ATREST1_ACCESS_REVOKED && changes > 0 && last_access == access);
    IS(ATREST1_CMEK_REVOKED, atrest1_encrypt_at(encryptor, 0, bytes, 16));
    Atrest1Encryptor *none;
    IS(ATREST1_CMEK_REVOKED, atrest1_encryptor_new(store, 1, 0, header, &none));

    CHECK(rename(away, key) == 0);
    OK(atrest1_access_check(store, NULL));
    OK(atrest1_access_check(store, &access));
    CHECK(access == ATREST1_ACCESS_ACTIVE);
    OK(atrest1_encrypt_at(encryptor, 0, bytes, 16));

    OK(atrest1_access_revoke(store));
    IS(ATREST1_CMEK_REVOKED, atrest1_encrypt_at(encryptor, 16, bytes, 16));
    OK(atrest1_access_restore(store));
    OK(atrest1_encrypt_at(encryptor, 16, bytes, 16));
    int until = changes;
    OK(atrest1_access_on_change(store, NULL, NULL));
    OK(atrest1_access_revoke(store));
    OK(atrest1_access_restore(store));
    CHECK(changes == until);
    atrest1_encryptor_free(encryptor);
}

/* How many entries a directory has, and how many of them are the library's. */
static void entries(const char *of, int *all, int *reserved)
{
    DIR *open = opendir(of);
    CHECK(open != NULL);
    *all = *reserved = 0;
    for (struct dirent *entry; (entry = readdir(open)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        ++*all;
        *reserved += atrest1_is_reserved(entry->d_name);
    }
    closedir(open);
}

static void directories(Atrest1Store *store)
{
    char outside[2100], renamed[2100];
    int all, reserved;

    snprintf(outside, sizeof outside, "%s.outside", dir);
    snprintf(renamed, sizeof renamed, "%s.renamed", dir);
    OK(atrest1_create_directory(store, outside));
    entries(outside, &all, &reserved);
    CHECK(all == 1 && reserved == 1);
    OK(atrest1_rename(store, outside, renamed));
    IS(ATREST1_IO_NOT_FOUND, atrest1_remove_directory(store, outside));
    IS(ATREST1_IO_NOT_FOUND, atrest1_take_over_directory(store, outside));
    OK(atrest1_take_over_directory(store, renamed));
    OK(atrest1_remove_directory(store, renamed));
    CHECK(access(renamed, F_OK) != 0);
    IS(ATREST1_INVALID_ARGUMENT, atrest1_remove_directory(store, NULL));
    CHECK(atrest1_is_reserved("KEYRING") && !atrest1_is_reserved("000012.sst"));
    CHECK(!atrest1_is_reserved(NULL) && !atrest1_is_reserved(""));
}

static void opening(void)
{
    Atrest1Store *store = NULL, *second;
    uint8_t one[16], two[16], header[ATREST1_HEADER_LEN];
    char *json;

    IS(ATREST1_KEYRING_MISSING, atrest1_store_open(dir, cmek, "mode=open", &store));
    CHECK(store == NULL);
    IS(ATREST1_INVALID_ARGUMENT, atrest1_store_open(dir, cmek, "mode=opne", &store));
    IS(ATREST1_INVALID_ARGUMENT, atrest1_store_open(dir, NULL, NULL, &store));
    IS(ATREST1_INVALID_ARGUMENT, atrest1_store_open(dir, "\xff", NULL, &store));
    IS(ATREST1_INVALID_ARGUMENT, atrest1_store_open(dir, " ", NULL, &store));
    IS(ATREST1_INVALID_ARGUMENT, atrest1_store_open(dir, cmek, NULL, NULL));
    IS(ATREST1_KMS_FAILED, atrest1_store_open(dir, "fiel:///x", NULL, &store));
    CHECK(strstr(atrest1_error_text(), "file") != NULL);

    OK(atrest1_store_open(dir, cmek, "mode=create; rotation_period_s=86400", &store));
    IS(ATREST1_KEYRING_BUSY, atrest1_store_open(dir, cmek, NULL, &second));
    OK(atrest1_store_open(dir, cmek, "mode=read-only", &second));
    Atrest1Encryptor *encryptor;
    IS(ATREST1_READ_ONLY, atrest1_encryptor_new(second, 1, 0, header, &encryptor));
    IS(ATREST1_READ_ONLY, atrest1_store_rotate(second, one));
    atrest1_store_free(second);

    OK(atrest1_store_rotate(store, one));
    OK(atrest1_store_rotate(store, two));
    OK(atrest1_store_rotate(store, NULL));
    CHECK(memcmp(one, two, 16) != 0);
    IS(ATREST1_INVALID_ARGUMENT, atrest1_store_status_json(store, NULL));
    OK(atrest1_store_status_json(store, &json));
    CHECK(strstr(json, "\"data_keys\"") && strstr(json, "\"state\":\"active\""));
    atrest1_string_free(json);
    OK(atrest1_register_directory(store, dir));
    IS(ATREST1_INVALID_ARGUMENT, atrest1_register_directory(store, "relative"));
    directories(store);
    OK(atrest1_store_close(store));
}

/* Valgrind does not map what is written below the stack pointer, as the library does where a
 * key was used, unless the stack has been that deep. */
static void deepen_stack(void)
{
    volatile char deep[256 << 10];
    for (size_t i = 0; i < sizeof deep; i += 64)
        deep[i] = 0;
}

int main(int argc, char **argv)
{
    Atrest1Store *store, *strict;
    uint8_t header[ATREST1_HEADER_LEN];

    if (argc != 2)
        return 2;
    deepen_stack();
    snprintf(dir, sizeof dir, "%s", argv[1]);
    snprintf(key, sizeof key, "%s.key", dir);
    snprintf(cmek, sizeof cmek, "file://%s", key);
    CHECK(atrest1_abi() >= ATREST1_ABI && strlen(atrest1_version()) >= 5);
    CHECK(strcmp(atrest1_code_name(ATREST1_CMEK_REVOKED), "cmek-revoked") == 0);
    CHECK(strcmp(atrest1_code_name(-1), "unknown") == 0);
    CHECK(*atrest1_error_text() == 0);
    CHECK(mkdir(dir, 0777) == 0);
    OK(atrest1_generate_key_file(key));
    IS(ATREST1_IO_EXISTS, atrest1_generate_key_file(key));

    opening();
    OK(atrest1_store_open(dir, cmek, "mode=open;confirmations=1;confirm_over_s=0", &store));
    contexts(store);
    files(store);
    threads(store);
    access_to_the_key(store);

    /* A file outlives the handle of its store, which stays open for it. */
    Atrest1Encryptor *encryptor;
    OK(atrest1_encryptor_new(store, 2, 0, header, &encryptor));
    OK(atrest1_store_close(store));
    OK(atrest1_encrypt_at(encryptor, 0, header, 16));
    IS(ATREST1_KEYRING_BUSY, atrest1_store_open(dir, cmek, NULL, &store));
    atrest1_encryptor_free(encryptor);
    OK(atrest1_store_open(dir, cmek, NULL, &store));
    atrest1_store_free(store);

    /* A store that requires authentication has no counter mode. */
    snprintf(path, sizeof path, "%s.strict", dir);
    CHECK(mkdir(path, 0777) == 0);
    OK(atrest1_store_open(path, cmek, "integrity=authenticated", &strict));
    IS(ATREST1_UNSUPPORTED_FEATURE, atrest1_encryptor_new(strict, 1, 0, header, &encryptor));
    atrest1_store_free(strict);

    atrest1_store_free(NULL), atrest1_writer_free(NULL), atrest1_reader_free(NULL);
    atrest1_encryptor_free(NULL), atrest1_decryptor_free(NULL), atrest1_string_free(NULL);
    OK(atrest1_store_close(NULL));
    puts("all good");
    return 0;
}
