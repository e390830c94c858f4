#include "harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* In seconds. A broker that never answers must not hold up the run for long. */
enum { RUN_TIMEOUT = 45, EVENT_TIMEOUT = 5 };
enum { MAX_NAMES = 64, MAX_CONNECTIONS = 32 };

/* The library allocates deliveries and messages one by one; they are freed when the case has ended. */
struct owned {
    amqp_envelope_t *envelope;
    amqp_message_t *message;
    struct owned *next;
};

static struct {
    const char *host;
    int port;
    time_t deadline;
    char prefix[96];
    amqp_pool_t memory;
    struct owned *owned;
    char *names[MAX_NAMES];
    int name_count;
    connection_t connections[MAX_CONNECTIONS];
    int connection_count;
    char reason[1024];
    jmp_buf failed;
} current;

static time_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec;
}

/* failure handling */

void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(current.reason, sizeof current.reason, format, arguments);
    va_end(arguments);
    longjmp(current.failed, 1);
}

void expect(bool condition, const char *what)
{
    if (!condition) {
        fail("%s", what);
    }
}

void expect_int(const char *what, int64_t expected, int64_t actual)
{
    if (expected != actual) {
        fail("%s: expected %lld, got %lld", what, (long long)expected, (long long)actual);
    }
}

void expect_bytes(const char *what, amqp_bytes_t expected, amqp_bytes_t actual)
{
    if (expected.len != actual.len || (expected.len > 0 && memcmp(expected.bytes, actual.bytes, expected.len) != 0)) {
        fail("%s: expected %.*s (%zu bytes), got %.*s (%zu bytes)", what,
             expected.len > 300 ? 300 : (int)expected.len, (char *)expected.bytes, expected.len,
             actual.len > 300 ? 300 : (int)actual.len, (char *)actual.bytes, actual.len);
    }
}

void expect_text(const char *what, const char *expected, amqp_bytes_t actual)
{
    expect_bytes(what, bytes(expected), actual);
}

/* memory and names */

void *allocate(size_t size)
{
    void *memory = amqp_pool_alloc(&current.memory, size);
    if (memory == NULL) {
        fail("out of memory");
    }
    return memory;
}

static void own(amqp_envelope_t *envelope, amqp_message_t *message)
{
    struct owned *owned = allocate(sizeof *owned);
    *owned = (struct owned){.envelope = envelope, .message = message, .next = current.owned};
    current.owned = owned;
}

static void free_memory(void)
{
    for (struct owned *owned = current.owned; owned != NULL; owned = owned->next) {
        if (owned->envelope != NULL) {
            amqp_destroy_envelope(owned->envelope);
        } else {
            amqp_destroy_message(owned->message);
        }
    }
    current.owned = NULL;
    empty_amqp_pool(&current.memory);
}

char *text(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *string = allocate((size_t)length + 1);
    va_start(arguments, format);
    vsnprintf(string, (size_t)length + 1, format, arguments);
    va_end(arguments);
    return string;
}

amqp_bytes_t bytes(const char *string)
{
    return amqp_cstring_bytes(string);
}

static char *string_of(amqp_bytes_t value)
{
    return text("%.*s", (int)value.len, (char *)value.bytes);
}

char *unique(const char *suffix)
{
    if (current.name_count == MAX_NAMES) {
        fail("too many names");
    }
    return current.names[current.name_count++] = text("%s.%s", current.prefix, suffix);
}

/* connections and channels */

amqp_rpc_reply_t try_connect(connection_t *connection, const char *vhost, const char *password, int frame_max)
{
    struct timeval timeout = {.tv_sec = EVENT_TIMEOUT};
    if (current.connection_count == MAX_CONNECTIONS) {
        fail("too many connections");
    }
    *connection = amqp_new_connection();
    current.connections[current.connection_count++] = *connection;
    ok_status(amqp_set_rpc_timeout(*connection, &timeout), "RPC timeout");
    ok_status(amqp_set_handshake_timeout(*connection, &timeout), "handshake timeout");
    amqp_socket_t *socket = amqp_tcp_socket_new(*connection);
    ok_status(amqp_socket_open_noblock(socket, current.host, current.port, &timeout), "connecting");
    return amqp_login(*connection, vhost, 0, frame_max, 60, AMQP_SASL_METHOD_PLAIN, "guest", password);
}

connection_t connect_with(int frame_max)
{
    connection_t connection;
    ok_reply(try_connect(&connection, "/", "guest", frame_max), "login");
    open_channel(connection, 1);
    return connection;
}

connection_t connect_broker(void)
{
    return connect_with(AMQP_DEFAULT_FRAME_SIZE);
}

void open_channel(connection_t connection, amqp_channel_t channel)
{
    amqp_channel_open(connection, channel);
    ok_rpc(connection, "channel.open");
}

void close_channel(connection_t connection, amqp_channel_t channel)
{
    ok_reply(amqp_channel_close(connection, channel, AMQP_REPLY_SUCCESS), "channel.close");
}

static void destroy(connection_t connection)
{
    for (int i = 0; i < current.connection_count; i++) {
        if (current.connections[i] == connection) {
            current.connections[i] = current.connections[--current.connection_count];
        }
    }
    amqp_destroy_connection(connection);
}

void close_connection(connection_t connection)
{
    amqp_rpc_reply_t reply = amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
    destroy(connection);
    ok_reply(reply, "connection.close");
}

void reset_connection(connection_t connection)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    if (setsockopt(amqp_get_sockfd(connection), SOL_SOCKET, SO_LINGER, &linger, sizeof linger) != 0) {
        fail("SO_LINGER");
    }
    destroy(connection);
}

/* replies */

static const char *describe(amqp_rpc_reply_t reply)
{
    if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION) {
        return amqp_error_string2(reply.library_error);
    }
    if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION) {
        if (reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD) {
            amqp_channel_close_t *close = reply.reply.decoded;
            return text("channel.close %d %s", close->reply_code, string_of(close->reply_text));
        }
        if (reply.reply.id == AMQP_CONNECTION_CLOSE_METHOD) {
            amqp_connection_close_t *close = reply.reply.decoded;
            return text("connection.close %d %s", close->reply_code, string_of(close->reply_text));
        }
    }
    return text("reply type %d, method 0x%08x", (int)reply.reply_type, reply.reply.id);
}

void ok_reply(amqp_rpc_reply_t reply, const char *what)
{
    if (reply.reply_type != AMQP_RESPONSE_NORMAL) {
        fail("%s: %s", what, describe(reply));
    }
}

void ok_rpc(connection_t connection, const char *what)
{
    ok_reply(amqp_get_rpc_reply(connection), what);
}

void ok_status(int status, const char *what)
{
    if (status != AMQP_STATUS_OK) {
        fail("%s: %s", what, amqp_error_string2(status));
    }
}

static void channel_closed(connection_t connection, amqp_channel_t channel, amqp_method_t method, int code,
                           const char *reply_text)
{
    if (method.id != AMQP_CHANNEL_CLOSE_METHOD) {
        fail("expected channel.close %d %s, got method 0x%08x", code, reply_text, method.id);
    }
    amqp_channel_close_t *close = method.decoded;
    expect_int("reply code", code, close->reply_code);
    /* A reply text that does not fit into a short string is cut. */
    const char *shortened = strlen(reply_text) > 255 ? text("%.252s...", reply_text) : reply_text;
    expect_text("reply text", shortened, close->reply_text);
    /* The library leaves answering, and thereby freeing the channel number, to its user. */
    amqp_channel_close_ok_t answer = {0};
    ok_status(amqp_send_method(connection, channel, AMQP_CHANNEL_CLOSE_OK_METHOD, &answer), "channel.close-ok");
}

void expect_channel_error(connection_t connection, amqp_channel_t channel, int code, const char *reply_text)
{
    amqp_rpc_reply_t reply = amqp_get_rpc_reply(connection);
    if (reply.reply_type != AMQP_RESPONSE_SERVER_EXCEPTION) {
        fail("expected channel.close %d %s, got %s", code, reply_text, describe(reply));
    }
    channel_closed(connection, channel, reply.reply, code, reply_text);
}

static amqp_frame_t next_frame(connection_t connection)
{
    struct timeval timeout = {.tv_sec = EVENT_TIMEOUT};
    amqp_frame_t frame;
    ok_status(amqp_simple_wait_frame_noblock(connection, &frame, &timeout), "waiting for a frame");
    return frame;
}

void await_channel_error(connection_t connection, amqp_channel_t channel, int code, const char *reply_text)
{
    amqp_frame_t frame = next_frame(connection);
    expect_int("frame type", AMQP_FRAME_METHOD, frame.frame_type);
    expect_int("channel", channel, frame.channel);
    channel_closed(connection, channel, frame.payload.method, code, reply_text);
}

void expect_refused(amqp_rpc_reply_t reply, int code, const char *reply_text)
{
    if (reply.reply_type != AMQP_RESPONSE_SERVER_EXCEPTION || reply.reply.id != AMQP_CONNECTION_CLOSE_METHOD) {
        fail("expected connection.close %d %s, got %s", code, reply_text, describe(reply));
    }
    amqp_connection_close_t *close = reply.reply.decoded;
    expect_int("reply code", code, close->reply_code);
    expect_text("reply text", reply_text, close->reply_text);
}

/* queues and exchanges, always on channel 1 */

char *declare_queue(connection_t connection, const char *name, int flags, amqp_table_t arguments)
{
    amqp_queue_declare_ok_t *declared =
        amqp_queue_declare(connection, 1, bytes(name), 0, (flags & DURABLE) != 0, (flags & EXCLUSIVE) != 0,
                           (flags & AUTO_DELETE) != 0, arguments);
    ok_rpc(connection, "queue.declare");
    return string_of(declared->queue);
}

char *new_queue(connection_t connection, const char *suffix, int flags)
{
    return declare_queue(connection, unique(suffix), flags, amqp_empty_table);
}

char *declare_exchange(connection_t connection, const char *name, const char *type, int flags, amqp_table_t arguments)
{
    amqp_exchange_declare(connection, 1, bytes(name), bytes(type), 0, (flags & DURABLE) != 0,
                          (flags & AUTO_DELETE) != 0, 0, arguments);
    ok_rpc(connection, "exchange.declare");
    return text("%s", name);
}

char *new_exchange(connection_t connection, const char *suffix, const char *type, int flags)
{
    return declare_exchange(connection, unique(suffix), type, flags, amqp_empty_table);
}

void bind_queue(connection_t connection, const char *queue, const char *exchange, const char *key)
{
    amqp_queue_bind(connection, 1, bytes(queue), bytes(exchange), bytes(key), amqp_empty_table);
    ok_rpc(connection, "queue.bind");
}

void unbind_queue(connection_t connection, const char *queue, const char *exchange, const char *key)
{
    amqp_queue_unbind(connection, 1, bytes(queue), bytes(exchange), bytes(key), amqp_empty_table);
    ok_rpc(connection, "queue.unbind");
}

static amqp_queue_declare_ok_t *passive(connection_t connection, amqp_channel_t channel, const char *queue)
{
    amqp_queue_declare_ok_t *declared =
        amqp_queue_declare(connection, channel, bytes(queue), 1, 0, 0, 0, amqp_empty_table);
    ok_rpc(connection, "passive queue.declare");
    return declared;
}

int64_t ready(connection_t connection, amqp_channel_t channel, const char *queue)
{
    return passive(connection, channel, queue)->message_count;
}

int64_t consumers(connection_t connection, const char *queue)
{
    return passive(connection, 1, queue)->consumer_count;
}

static bool found(connection_t connection)
{
    amqp_rpc_reply_t reply = amqp_get_rpc_reply(connection);
    bool missing = reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION &&
                   reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD &&
                   ((amqp_channel_close_t *)reply.reply.decoded)->reply_code == AMQP_NOT_FOUND;
    if (!missing) {
        ok_reply(reply, "passive declare");
    }
    close_connection(connection);
    return !missing;
}

bool queue_exists(const char *queue)
{
    connection_t connection = connect_broker();
    amqp_queue_declare(connection, 1, bytes(queue), 1, 0, 0, 0, amqp_empty_table);
    return found(connection);
}

bool exchange_exists(const char *exchange)
{
    connection_t connection = connect_broker();
    amqp_exchange_declare(connection, 1, bytes(exchange), bytes(""), 1, 0, 0, 0, amqp_empty_table);
    return found(connection);
}

void eventually_gone(bool (*exists)(const char *), const char *name)
{
    time_t deadline = now() + EVENT_TIMEOUT;
    while (exists(name)) {
        if (now() > deadline) {
            fail("%s is still there", name);
        }
        usleep(20000);
    }
}

/* publishing */

amqp_basic_properties_t persistent(void)
{
    return (amqp_basic_properties_t){
        ._flags = AMQP_BASIC_DELIVERY_MODE_FLAG,
        .delivery_mode = AMQP_DELIVERY_PERSISTENT,
    };
}

void publish_message(connection_t connection, amqp_channel_t channel, const char *exchange, const char *key,
                     bool mandatory, const amqp_basic_properties_t *properties, amqp_bytes_t body)
{
    ok_status(amqp_basic_publish(connection, channel, bytes(exchange), bytes(key), mandatory, 0, properties, body),
              "basic.publish");
}

void publish(connection_t connection, amqp_channel_t channel, const char *exchange, const char *key, const char *body)
{
    publish_message(connection, channel, exchange, key, false, NULL, bytes(body));
}

void confirm_select(connection_t connection, amqp_channel_t channel)
{
    amqp_confirm_select(connection, channel);
    ok_rpc(connection, "confirm.select");
}

static amqp_message_t *read_message(connection_t connection, amqp_channel_t channel)
{
    amqp_message_t *message = allocate(sizeof *message);
    ok_reply(amqp_read_message(connection, channel, message, 0), "reading a message");
    own(NULL, message);
    return message;
}

struct event next_event(connection_t connection)
{
    amqp_frame_t frame = next_frame(connection);
    expect_int("frame type", AMQP_FRAME_METHOD, frame.frame_type);
    struct event event = {.method = frame.payload.method.id};
    if (event.method == AMQP_BASIC_ACK_METHOD) {
        amqp_basic_ack_t *confirm = frame.payload.method.decoded;
        event.tag = confirm->delivery_tag;
        event.multiple = confirm->multiple;
    } else if (event.method == AMQP_BASIC_NACK_METHOD) {
        amqp_basic_nack_t *confirm = frame.payload.method.decoded;
        event.tag = confirm->delivery_tag;
        event.multiple = confirm->multiple;
    } else if (event.method == AMQP_BASIC_RETURN_METHOD) {
        amqp_basic_return_t *returned = frame.payload.method.decoded;
        event.reply_code = returned->reply_code;
        event.reply_text = string_of(returned->reply_text);
        event.exchange = string_of(returned->exchange);
        event.routing_key = string_of(returned->routing_key);
        event.message = read_message(connection, frame.channel);
    } else {
        fail("unexpected method 0x%08x", event.method);
    }
    return event;
}

void await_acks(connection_t connection, uint64_t first, uint64_t last)
{
    bool *acked = allocate((last + 1) * sizeof *acked);
    memset(acked, 0, (last + 1) * sizeof *acked);
    for (uint64_t missing = last - first + 1; missing > 0;) {
        struct event event = next_event(connection);
        expect_int("confirm", AMQP_BASIC_ACK_METHOD, event.method);
        expect(event.tag >= first && event.tag <= last, "confirm of an unknown tag");
        for (uint64_t tag = event.multiple ? first : event.tag; tag <= event.tag; tag++) {
            expect(event.multiple || !acked[tag], "confirmed twice");
            missing -= !acked[tag];
            acked[tag] = true;
        }
    }
}

/* consuming */

char *consume(connection_t connection, amqp_channel_t channel, const char *queue, bool no_ack)
{
    amqp_basic_consume_ok_t *consumer = amqp_basic_consume(connection, channel, bytes(queue), amqp_empty_bytes, 0,
                                                           no_ack, 0, amqp_empty_table);
    ok_rpc(connection, "basic.consume");
    return string_of(consumer->consumer_tag);
}

amqp_envelope_t *receive(connection_t connection)
{
    struct timeval timeout = {.tv_sec = EVENT_TIMEOUT};
    amqp_envelope_t *envelope = allocate(sizeof *envelope);
    amqp_maybe_release_buffers(connection);
    ok_reply(amqp_consume_message(connection, envelope, &timeout, 0), "waiting for a delivery");
    own(envelope, NULL);
    return envelope;
}

void expect_delivery(connection_t connection, const char *body, bool redelivered)
{
    amqp_envelope_t *delivery = receive(connection);
    expect_text("body", body, delivery->message.body);
    expect_int(text("redelivered of %s", body), redelivered, delivery->redelivered);
}

void nothing_more(connection_t connection)
{
    struct timeval none = {0};
    amqp_envelope_t envelope;
    amqp_rpc_reply_t reply = amqp_consume_message(connection, &envelope, &none, 0);
    if (reply.reply_type == AMQP_RESPONSE_NORMAL) {
        fail("one delivery too many: %s", string_of(envelope.message.body));
    }
    if (reply.library_error != AMQP_STATUS_TIMEOUT) {
        fail("expected nothing, got %s", describe(reply));
    }
}

void ack(connection_t connection, amqp_channel_t channel, uint64_t tag, bool multiple)
{
    ok_status(amqp_basic_ack(connection, channel, tag, multiple), "basic.ack");
}

struct got get(connection_t connection, amqp_channel_t channel, const char *queue, bool no_ack)
{
    amqp_rpc_reply_t reply = amqp_basic_get(connection, channel, bytes(queue), no_ack);
    ok_reply(reply, "basic.get");
    if (reply.reply.id == AMQP_BASIC_GET_EMPTY_METHOD) {
        return (struct got){.empty = true};
    }
    amqp_basic_get_ok_t *answer = reply.reply.decoded;
    return (struct got){
        .tag = answer->delivery_tag,
        .redelivered = answer->redelivered,
        .remaining = answer->message_count,
        .exchange = string_of(answer->exchange),
        .routing_key = string_of(answer->routing_key),
        .message = read_message(connection, channel),
    };
}

char *drain(connection_t connection, amqp_channel_t channel, const char *queue)
{
    char *all = "";
    for (;;) {
        struct got got = get(connection, channel, queue, true);
        if (got.empty) {
            return all;
        }
        all = text("%s%s%s", all, *all ? " " : "", string_of(got.message->body));
    }
}

/* tables */

amqp_table_entry_t entry(const char *key, amqp_field_value_t value)
{
    return (amqp_table_entry_t){.key = bytes(key), .value = value};
}

amqp_field_value_t utf8(const char *value)
{
    return (amqp_field_value_t){.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = bytes(value)};
}

amqp_field_value_t i32(int32_t value)
{
    return (amqp_field_value_t){.kind = AMQP_FIELD_KIND_I32, .value.i32 = value};
}

amqp_table_t table_of(int count, amqp_table_entry_t *entries)
{
    return (amqp_table_t){.num_entries = count, .entries = entries};
}

amqp_bytes_t encoded(amqp_table_t table)
{
    enum { SPACE = 4096 };
    amqp_bytes_t space = {.len = SPACE, .bytes = allocate(SPACE)};
    size_t length = 0;
    ok_status(amqp_encode_table(space, &table, &length), "encoding a table");
    space.len = length;
    return space;
}

/* running */

static void clean_up(void)
{
    while (current.connection_count > 0) {
        connection_t connection = current.connections[--current.connection_count];
        amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
        amqp_destroy_connection(connection);
    }
    if (setjmp(current.failed)) {
        fprintf(stderr, "cleaning up after %s: %s\n", current.prefix, current.reason);
    } else {
        connection_t connection = connect_broker();
        for (int i = 0; i < current.name_count; i++) {
            amqp_queue_delete(connection, 1, bytes(current.names[i]), 0, 0);
            ok_rpc(connection, "queue.delete");
            amqp_exchange_delete(connection, 1, bytes(current.names[i]), 0);
            ok_rpc(connection, "exchange.delete");
        }
        close_connection(connection);
    }
    current.name_count = 0;
    current.connection_count = 0;
}

static bool run_case(const struct interop_case *test)
{
    if (setjmp(current.failed) != 0) {
        printf("FAIL %s: %s\n", test->name, current.reason);
        return false;
    }
    if (now() >= current.deadline) {
        fail("no time left to run it");
    }
    test->run();
    printf("ok %s\n", test->name);
    return true;
}

int run_cases(const struct interop_case *cases, size_t count, const char *host, int port)
{
    size_t passed = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    current.host = host;
    current.port = port;
    current.deadline = now() + RUN_TIMEOUT;

    for (size_t i = 0; i < count; i++) {
        uint32_t run_id;
        if (getrandom(&run_id, sizeof run_id, 0) != sizeof run_id) {
            perror("getrandom");
            return EXIT_FAILURE;
        }
        snprintf(current.prefix, sizeof current.prefix, "interop.c.%08x.%s", run_id, cases[i].name);
        init_amqp_pool(&current.memory, 65536);
        passed += run_case(&cases[i]);
        clean_up();
        free_memory();
    }
    printf("%zu passed, %zu failed\n", passed, count - passed);
    return passed == count ? EXIT_SUCCESS : EXIT_FAILURE;
}
