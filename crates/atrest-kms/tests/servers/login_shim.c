/* SoftHSM behind a C_Login that counts its calls in the file "logins", and takes long or says
 * that the token is locked while there is a file "slow" or "locked". */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long ulong;
typedef ulong (*login_fn)(ulong, ulong, unsigned char *, ulong);

/* CK_FUNCTION_LIST of PKCS#11 2.40: a version and 68 functions, C_Login the 19th. */
enum { LIST_LEN = 69, LOGIN = 19, CKR_PIN_LOCKED = 0xa4, SLOW_SECS = 6 };
static void *list[LIST_LEN];
static login_fn softhsm_login;

static int is_there(const char *name, const char *mode) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("ATREST_TEST_SOFTHSM_DIR"), name);
    FILE *file = fopen(path, mode);
    if (file == NULL) return 0;
    if (mode[0] == 'a') fputc('.', file);
    fclose(file);
    return 1;
}

static ulong login(ulong session, ulong user, unsigned char *pin, ulong len) {
    is_there("logins", "a");
    if (is_there("slow", "r")) sleep(SLOW_SECS);
    if (is_there("locked", "r")) return CKR_PIN_LOCKED;
    return softhsm_login(session, user, pin, len);
}

ulong C_GetFunctionList(void **given) {
    void *library = dlopen(MODULE, RTLD_NOW);
    ulong (*get)(void **) = (ulong (*)(void **))dlsym(library, "C_GetFunctionList");
    void *softhsm;
    ulong result = get(&softhsm);
    if (result != 0) return result;
    memcpy(list, softhsm, sizeof list);
    softhsm_login = (login_fn)list[LOGIN];
    list[LOGIN] = (void *)login;
    *given = list;
    return 0;
}
