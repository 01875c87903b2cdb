/* The PKCS #11 module that a host loads: it hands every call to the token server and knows nothing itself.
 *
 * A call is sent as (function number, count, arguments); then the server reads and writes the memory of this process by
 * asking this end, and at last sends the return value.  A connection begins with the process id, which the server answers as
 * a call.  All words are uint64_t of this machine.  See memory.py and server.py.
 *
 * The module at PATH/NAME.so talks to the socket PATH/NAME.sock.  Each thread has a connection of its own, which ends with
 * the thread; one more, the lifeline, lasts from C_Initialize's until C_Finalize's, so that the server knows the host is
 * there when no thread of it that ever called is left.  A forked child has none of them, and begins as a host of its own.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

typedef unsigned long word;      /* CK_ULONG, or a pointer: as wide wherever PKCS #11 modules run on POSIX */
typedef unsigned char boolean;   /* CK_BBOOL */
_Static_assert(sizeof(word) == sizeof(void *), "a pointer travels as a CK_ULONG");

enum { CKR_OK = 0x00, CKR_GENERAL_ERROR = 0x05, CKR_ARGUMENTS_BAD = 0x07, CKR_DEVICE_ERROR = 0x30 };
enum { RETURN = 0, READ = 1, WRITE = 2 };      /* what the server orders */
enum { MOST_ARGUMENTS = 8 };

/* Every function in the order of CK_FUNCTION_LIST, but C_GetFunctionList, which is answered here: its arguments are words,
 * with the exception of the truth value that C_GetSlotList begins with. */
#define FUNCTIONS_BEFORE_LIST(F) F(C_Initialize, 1) F(C_Finalize, 1) F(C_GetInfo, 1)
#define FUNCTIONS_AFTER_LIST(F)                                                                                       \
    F(C_GetSlotList, FLAG_2) F(C_GetSlotInfo, 2) F(C_GetTokenInfo, 2) F(C_GetMechanismList, 3)                        \
    F(C_GetMechanismInfo, 3) F(C_InitToken, 4) F(C_InitPIN, 3) F(C_SetPIN, 5) F(C_OpenSession, 5)                     \
    F(C_CloseSession, 1) F(C_CloseAllSessions, 1) F(C_GetSessionInfo, 2) F(C_GetOperationState, 3)                    \
    F(C_SetOperationState, 5) F(C_Login, 4) F(C_Logout, 1) F(C_CreateObject, 4) F(C_CopyObject, 5)                    \
    F(C_DestroyObject, 2) F(C_GetObjectSize, 3) F(C_GetAttributeValue, 4) F(C_SetAttributeValue, 4)                   \
    F(C_FindObjectsInit, 3) F(C_FindObjects, 4) F(C_FindObjectsFinal, 1) F(C_EncryptInit, 3) F(C_Encrypt, 5)          \
    F(C_EncryptUpdate, 5) F(C_EncryptFinal, 3) F(C_DecryptInit, 3) F(C_Decrypt, 5) F(C_DecryptUpdate, 5)              \
    F(C_DecryptFinal, 3) F(C_DigestInit, 2) F(C_Digest, 5) F(C_DigestUpdate, 3) F(C_DigestKey, 2) F(C_DigestFinal, 3) \
    F(C_SignInit, 3) F(C_Sign, 5) F(C_SignUpdate, 3) F(C_SignFinal, 3) F(C_SignRecoverInit, 3) F(C_SignRecover, 5)    \
    F(C_VerifyInit, 3) F(C_Verify, 5) F(C_VerifyUpdate, 3) F(C_VerifyFinal, 3) F(C_VerifyRecoverInit, 3)              \
    F(C_VerifyRecover, 5) F(C_DigestEncryptUpdate, 5) F(C_DecryptDigestUpdate, 5) F(C_SignEncryptUpdate, 5)           \
    F(C_DecryptVerifyUpdate, 5) F(C_GenerateKey, 5) F(C_GenerateKeyPair, 8) F(C_WrapKey, 6) F(C_UnwrapKey, 8)         \
    F(C_DeriveKey, 6) F(C_SeedRandom, 3) F(C_GenerateRandom, 3) F(C_GetFunctionStatus, 1) F(C_CancelFunction, 1)      \
    F(C_WaitForSlotEvent, 3)

#define NUMBER(name, shape) NUMBER_##name,
enum { FUNCTIONS_BEFORE_LIST(NUMBER) NUMBER_C_GetFunctionList, FUNCTIONS_AFTER_LIST(NUMBER) NUMBERS };
_Static_assert(NUMBERS == 68, "PKCS #11 2.40 has 68 functions");

/* --- connections ------------------------------------------------------------------------------------------------- */

struct connection {
    int socket;
    struct connection *next, **here;
};

static struct sockaddr_un server = {.sun_family = AF_UNIX};      /* an empty path: this module cannot know its server */
static pthread_key_t own;                                        /* each thread's connection */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;         /* of what follows */
static struct connection *connections;                           /* of all threads, so that a forked child can close them */
static struct connection *lifeline;

static int send_all(int to, const void *data, size_t length)
{
    for (const char *at = data; length;) {
        ssize_t sent = send(to, at, length, MSG_NOSIGNAL);      /* EFAULT for what is not our memory */
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return -1;
        at += sent;
        length -= (size_t)sent;
    }
    return 0;
}

static int receive_all(int from, void *data, size_t length)
{
    for (char *at = data; length;) {
        ssize_t received = recv(from, at, length, MSG_WAITALL);
        if (received < 0 && errno == EINTR)
            continue;
        if (received <= 0)
            return -1;
        at += received;
        length -= (size_t)received;
    }
    return 0;
}

static void hang_up(void *which)
{
    struct connection *connection = which;
    if (!connection)
        return;
    pthread_mutex_lock(&lock);
    if ((*connection->here = connection->next))
        connection->next->here = connection->here;
    pthread_mutex_unlock(&lock);
    close(connection->socket);
    free(connection);
}

static struct connection *dial(void)
{
    const uint64_t process = (uint64_t)getpid();
    uint64_t welcome[3];      /* until it has come, the server may not know of this connection */
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection || !server.sun_path[0])
        goto failed;
    connection->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->socket < 0)
        goto failed;
    if (connect(connection->socket, (const struct sockaddr *)&server, sizeof server) ||
        send_all(connection->socket, &process, sizeof process) ||
        receive_all(connection->socket, welcome, sizeof welcome)) {
        close(connection->socket);
        goto failed;
    }
    pthread_mutex_lock(&lock);
    if ((connection->next = connections))
        connections->here = &connection->next;
    connection->here = &connections;
    connections = connection;
    pthread_mutex_unlock(&lock);
    return connection;
failed:
    free(connection);
    return NULL;
}

static struct connection *connection_of_this_thread(void)
{
    struct connection *connection = pthread_getspecific(own);
    if (!connection && (connection = dial()))
        pthread_setspecific(own, connection);
    return connection;
}

static void hang_up_this_thread(void)
{
    hang_up(pthread_getspecific(own));
    pthread_setspecific(own, NULL);
}

/* The lifeline is there (`wanted`) or not; two threads may meet here. */
static void set_lifeline(int wanted)
{
    struct connection *other = wanted ? dial() : NULL;
    pthread_mutex_lock(&lock);
    struct connection *old = lifeline;
    lifeline = other;
    pthread_mutex_unlock(&lock);
    hang_up(old);
}

static void before_fork(void) { pthread_mutex_lock(&lock); }
static void after_fork(void) { pthread_mutex_unlock(&lock); }

static void in_child(void)
{
    while (connections) {
        struct connection *connection = connections;
        connections = connection->next;
        close(connection->socket);
        free(connection);
    }
    lifeline = NULL;
    pthread_mutex_unlock(&lock);
    pthread_setspecific(own, NULL);
}

__attribute__((constructor)) static void find_server(void)
{
    static const char module_ending[] = ".so", socket_ending[] = ".sock";
    char path[PATH_MAX];
    Dl_info self;
    pthread_key_create(&own, hang_up);
    pthread_atfork(before_fork, after_fork, in_child);
    if (!dladdr(&server, &self) || !realpath(self.dli_fname, path))
        return;
    size_t length = strlen(path), stem = length - (sizeof module_ending - 1);
    if (length < sizeof module_ending || strcmp(path + stem, module_ending))
        return;
    if (stem + sizeof socket_ending > sizeof server.sun_path)
        return;
    memcpy(server.sun_path + stem, socket_ending, sizeof socket_ending);
    memcpy(server.sun_path, path, stem);
}

/* --- calls ------------------------------------------------------------------------------------------------------- */

static int converse(int with, const uint64_t *request, size_t words, word *returned)
{
    uint64_t order[3];      /* what, address or value, length */
    if (send_all(with, request, words * sizeof *request))
        return -1;
    for (;;) {
        if (receive_all(with, order, sizeof order))
            return -1;
        void *memory = (void *)(uintptr_t)order[1];
        switch (order[0]) {
        case RETURN:
            *returned = (word)order[1];
            return 0;
        case READ:
            if (send_all(with, memory, order[2]))
                return -1;
            break;
        case WRITE:
            if (receive_all(with, memory, order[2]))
                return -1;
            break;
        default:
            return -1;
        }
    }
}

static word call(unsigned function, unsigned count, const word *arguments)
{
    word returned = function == NUMBER_C_Initialize ? CKR_GENERAL_ERROR : CKR_DEVICE_ERROR;
    uint64_t request[2 + MOST_ARGUMENTS] = {function, count};
    struct connection *connection = connection_of_this_thread();
    if (!connection)
        return returned;
    for (unsigned i = 0; i < count; i++)
        request[2 + i] = arguments[i];
    if (converse(connection->socket, request, 2 + count, &returned))
        hang_up_this_thread();
    if (function == NUMBER_C_Initialize && returned == CKR_OK)
        set_lifeline(1);
    if (function == NUMBER_C_Finalize && returned == CKR_OK) {
        set_lifeline(0);
        hang_up_this_thread();
    }
    return returned;
}

/* The shapes of functions: parameters, and the same as words. */
#define PARAMETERS_1 word a
#define PARAMETERS_2 PARAMETERS_1, word b
#define PARAMETERS_3 PARAMETERS_2, word c
#define PARAMETERS_4 PARAMETERS_3, word d
#define PARAMETERS_5 PARAMETERS_4, word e
#define PARAMETERS_6 PARAMETERS_5, word f
#define PARAMETERS_8 PARAMETERS_6, word g, word h
#define PARAMETERS_FLAG_2 boolean a, word b, word c
#define WORDS_1 a
#define WORDS_2 WORDS_1, b
#define WORDS_3 WORDS_2, c
#define WORDS_4 WORDS_3, d
#define WORDS_5 WORDS_4, e
#define WORDS_6 WORDS_5, f
#define WORDS_8 WORDS_6, g, h
#define WORDS_FLAG_2 WORDS_3

#define DEFINITION(name, shape)                                                        \
    static word name(PARAMETERS_##shape)                                               \
    {                                                                                  \
        const word arguments[] = {WORDS_##shape};                                      \
        return call(NUMBER_##name, sizeof arguments / sizeof *arguments, arguments);   \
    }
FUNCTIONS_BEFORE_LIST(DEFINITION)
FUNCTIONS_AFTER_LIST(DEFINITION)

/* --- the function list (CK_FUNCTION_LIST) ------------------------------------------------------------------------ */

__attribute__((visibility("default"))) word C_GetFunctionList(void *list);

#define MEMBER_TYPE(name, shape) word (*name)(PARAMETERS_##shape);
#define MEMBER(name, shape) .name = name,
static struct {
    unsigned char version[2];
    FUNCTIONS_BEFORE_LIST(MEMBER_TYPE)
    word (*C_GetFunctionList)(void *);
    FUNCTIONS_AFTER_LIST(MEMBER_TYPE)
} function_list = {
    .version = {2, 40},
    FUNCTIONS_BEFORE_LIST(MEMBER)
    .C_GetFunctionList = C_GetFunctionList,
    FUNCTIONS_AFTER_LIST(MEMBER)
};

word C_GetFunctionList(void *list)
{
    if (!list)
        return CKR_ARGUMENTS_BAD;
    *(void **)list = &function_list;
    return CKR_OK;
}
