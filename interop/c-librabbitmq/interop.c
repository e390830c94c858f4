#include "harness.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LENGTH(array) (sizeof(array) / sizeof *(array))

static const char LOCKED[] =
    "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '%s' in vhost '/'. It could be originally "
    "declared on another connection or the exclusive property value does not match that of the original declaration.";

static void publish_confirms(void)
{
    enum { COUNT = 120 };
    connection_t connection = connect_broker();
    amqp_basic_properties_t properties = persistent();
    char *queue = new_queue(connection, "q", DURABLE);
    confirm_select(connection, 1);
    for (int i = 0; i < COUNT; i++) {
        publish_message(connection, 1, "", queue, false, &properties, bytes(text("message %d", i)));
    }
    await_acks(connection, 1, COUNT);
    expect_int("messages in the queue", COUNT, ready(connection, 1, queue));

    /* The return has to come before the confirm, or a publisher would take the message for routed. */
    publish_message(connection, 1, "", unique("missing"), true, NULL, bytes("nowhere"));
    struct event event = next_event(connection);
    expect_int("first event", AMQP_BASIC_RETURN_METHOD, event.method);
    expect_text("returned body", "nowhere", event.message->body);
    event = next_event(connection);
    expect_int("second event", AMQP_BASIC_ACK_METHOD, event.method);
    expect_int("its tag", COUNT + 1, event.tag);
}

static void consume_acks(void)
{
    connection_t connection = connect_broker();
    amqp_basic_properties_t properties = persistent();
    char *queue = new_queue(connection, "q", DURABLE);
    open_channel(connection, 2);
    for (int i = 0; i < 10; i++) {
        publish_message(connection, 1, "", queue, false, i % 2 ? &properties : NULL, bytes(text("m%d", i)));
    }
    consume(connection, 2, queue, false);
    for (int i = 0; i < 10; i++) {
        amqp_envelope_t *delivery = receive(connection);
        expect_text("body", text("m%d", i), delivery->message.body);
        expect_int("delivery tag", i + 1, delivery->delivery_tag);
        expect_int("redelivered", false, delivery->redelivered);
        expect_text("routing key", queue, delivery->routing_key);
    }
    ack(connection, 2, 5, true);
    ack(connection, 2, 7, false);
    close_channel(connection, 2);
    expect_int("messages returned by the closed channel", 4, ready(connection, 1, queue));

    open_channel(connection, 2);
    consume(connection, 2, queue, false);
    const char *left[] = {"m5", "m7", "m8", "m9"};
    for (size_t i = 0; i < LENGTH(left); i++) {
        expect_delivery(connection, left[i], true);
    }
    ack(connection, 2, 0, true);
    close_channel(connection, 2);
    expect_int("messages left", 0, ready(connection, 1, queue));
}

static void qos(connection_t connection, uint16_t count, bool global)
{
    amqp_basic_qos(connection, 1, 0, count, global);
    ok_rpc(connection, "basic.qos");
}

/* A queue may hand out more than the channel lets through, and have it back a moment later. */
static void expect_ready_in_both(const char *what, int expected, connection_t connection, char **queues)
{
    const struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};
    int found = -1;
    for (int tries = 0; tries < 200 && found != expected; tries++) {
        if (tries > 0) {
            nanosleep(&pause, NULL);
        }
        found = ready(connection, 1, queues[0]) + ready(connection, 1, queues[1]);
    }
    expect_int(what, expected, found);
}

static void prefetch(void)
{
    connection_t connection = connect_broker();
    char *queue = new_queue(connection, "q", TRANSIENT);
    char *other = new_queue(connection, "other", TRANSIENT);
    for (int i = 0; i < 10; i++) {
        publish(connection, 1, "", queue, text("%d", i));
        publish(connection, 1, "", other, text("other %d", i));
    }
    qos(connection, 3, false);
    consume(connection, 1, queue, false);
    for (int i = 0; i < 3; i++) {
        expect_delivery(connection, text("%d", i), false);
    }
    expect_int("ready while three are unacked", 7, ready(connection, 1, queue));
    ack(connection, 1, 1, false);
    expect_delivery(connection, "3", false);
    expect_int("ready after an ack", 6, ready(connection, 1, queue));
    ack(connection, 1, 4, true);
    for (int i = 4; i < 7; i++) {
        expect_delivery(connection, text("%d", i), false);
    }
    expect_int("ready after acking all three", 3, ready(connection, 1, queue));
    nothing_more(connection);

    /* Without global, each consumer of the channel has the limit to itself. */
    consume(connection, 1, other, false);
    for (int i = 0; i < 3; i++) {
        expect_delivery(connection, text("other %d", i), false);
    }
    expect_int("ready for the second consumer", 7, ready(connection, 1, other));
    nothing_more(connection);

    connection_t shared = connect_broker();
    char *queues[] = {new_queue(shared, "shared0", TRANSIENT), new_queue(shared, "shared1", TRANSIENT)};
    for (int i = 0; i < 10; i++) {
        publish(shared, 1, "", queues[i % 2], text("%d", i));
    }
    qos(shared, 4, true);
    consume(shared, 1, queues[0], false);
    consume(shared, 1, queues[1], false);
    for (int i = 0; i < 4; i++) {
        receive(shared);
    }
    expect_ready_in_both("ready while the channel's limit is used up", 6, shared, queues);
    ack(shared, 1, 1, false);
    receive(shared);
    expect_ready_in_both("ready after an ack", 5, shared, queues);
    nothing_more(shared);
}

static void basic_get(void)
{
    connection_t connection = connect_broker();
    char *queue = new_queue(connection, "q", DURABLE);
    expect(get(connection, 1, queue, true).empty, "the new queue is not empty");
    for (int i = 0; i < 3; i++) {
        amqp_basic_properties_t properties = {._flags = AMQP_BASIC_MESSAGE_ID_FLAG,
                                              .message_id = bytes(text("id%d", i))};
        publish_message(connection, 1, "", queue, false, &properties, bytes(text("m%d", i)));
    }
    for (int i = 0; i < 3; i++) {
        struct got got = get(connection, 1, queue, false);
        expect(!got.empty, "the queue is empty");
        expect_text("body", text("m%d", i), got.message->body);
        expect_text("message-id", text("id%d", i), got.message->properties.message_id);
        expect_int("remaining", 2 - i, got.remaining);
        expect_int("delivery tag", i + 1, got.tag);
        expect_int("redelivered", false, got.redelivered);
        expect_text("exchange", "", bytes(got.exchange));
        expect_text("routing key", queue, bytes(got.routing_key));
        ack(connection, 1, got.tag, false);
    }
    expect(get(connection, 1, queue, false).empty, "the queue is not empty");
}

static struct got expect_got(connection_t connection, const char *queue, const char *body, bool redelivered)
{
    struct got got = get(connection, 2, queue, false);
    expect(!got.empty, text("the queue is empty instead of holding %s", body));
    expect_text("body", body, got.message->body);
    expect_int(text("redelivered of %s", body), redelivered, got.redelivered);
    return got;
}

static void reject_requeue(void)
{
    connection_t connection = connect_broker();
    char *queue = new_queue(connection, "q", TRANSIENT);
    open_channel(connection, 2);
    const char *bodies[] = {"a", "b", "c", "d"};
    for (size_t i = 0; i < LENGTH(bodies); i++) {
        publish(connection, 2, "", queue, bodies[i]);
    }
    struct got a = expect_got(connection, queue, "a", false);
    ok_status(amqp_basic_reject(connection, 2, a.tag, true), "basic.reject");
    expect_got(connection, queue, "a", true);
    struct got b = expect_got(connection, queue, "b", false);
    expect_got(connection, queue, "c", false);
    /* Position, not arrival, decides: b goes back in front of d although c is still out. */
    ok_status(amqp_basic_nack(connection, 2, b.tag, false, true), "basic.nack");
    b = expect_got(connection, queue, "b", true);
    ok_status(amqp_basic_nack(connection, 2, b.tag, true, true), "basic.nack multiple");

    struct got again[4];
    for (size_t i = 0; i < LENGTH(bodies); i++) {
        again[i] = expect_got(connection, queue, bodies[i], i < 3);
    }
    ok_status(amqp_basic_reject(connection, 2, again[0].tag, false), "basic.reject");
    ok_status(amqp_basic_nack(connection, 2, again[2].tag, true, false), "basic.nack multiple");
    ok_status(amqp_basic_nack(connection, 2, again[3].tag, false, true), "basic.nack");
    close_channel(connection, 2);
    expect_text("what is left", "d", bytes(drain(connection, 1, queue)));
}

static void returns(void)
{
    connection_t connection = connect_broker();
    char *exchange = new_exchange(connection, "x", "direct", DURABLE);
    amqp_table_entry_t headers[] = {entry("answer", i32(42))};
    amqp_basic_properties_t properties = {
        ._flags = AMQP_BASIC_CORRELATION_ID_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_HEADERS_FLAG,
        .correlation_id = bytes("c1"),
        .delivery_mode = AMQP_DELIVERY_NONPERSISTENT,
        .headers = table_of(1, headers),
    };
    amqp_bytes_t body = {.len = 10, .bytes = "\0returned\xff"};
    publish(connection, 1, exchange, "nowhere", "dropped");
    publish_message(connection, 1, exchange, "nowhere", true, &properties, body);
    struct event event = next_event(connection);
    expect_int("event", AMQP_BASIC_RETURN_METHOD, event.method);
    expect_int("reply code", AMQP_NO_ROUTE, event.reply_code);
    expect_text("reply text", "NO_ROUTE", bytes(event.reply_text));
    expect_text("exchange", exchange, bytes(event.exchange));
    expect_text("routing key", "nowhere", bytes(event.routing_key));
    expect_bytes("body", body, event.message->body);
    expect_int("property flags", properties._flags, event.message->properties._flags);
    expect_text("correlation-id", "c1", event.message->properties.correlation_id);
    expect_int("delivery-mode", 1, event.message->properties.delivery_mode);
    expect_bytes("headers", encoded(properties.headers), encoded(event.message->properties.headers));

    char *queue = new_queue(connection, "q", TRANSIENT);
    bind_queue(connection, queue, exchange, "somewhere");
    publish_message(connection, 1, exchange, "somewhere", true, NULL, bytes("routed"));
    expect_text("routed message", "routed", bytes(drain(connection, 1, queue)));
    nothing_more(connection);
}

static void exclusive_auto_delete(void)
{
    connection_t owner = connect_broker();
    char *generated = declare_queue(owner, "", EXCLUSIVE, amqp_empty_table);
    char *random = generated + strlen("amq.gen-");
    expect(strncmp(generated, "amq.gen-", 8) == 0 && strlen(random) == 22 &&
               strspn(random, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == 22,
           text("server-generated name %s", generated));
    /* An empty name means the last queue declared on this channel. */
    bind_queue(owner, "", "amq.fanout", "");
    char *named = new_queue(owner, "exclusive", EXCLUSIVE);

    connection_t other = connect_broker();
    open_channel(other, 2);
    amqp_queue_declare(other, 2, bytes(named), 0, 0, 1, 0, amqp_empty_table);
    expect_channel_error(other, 2, AMQP_RESOURCE_LOCKED, text(LOCKED, named));
    open_channel(other, 2);
    amqp_queue_declare(other, 2, bytes(generated), 1, 0, 0, 0, amqp_empty_table);
    expect_channel_error(other, 2, AMQP_RESOURCE_LOCKED, text(LOCKED, generated));
    open_channel(other, 2);
    amqp_basic_consume(other, 2, bytes(generated), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    expect_channel_error(other, 2, AMQP_RESOURCE_LOCKED, text(LOCKED, generated));
    open_channel(other, 2);
    amqp_queue_delete(other, 2, bytes(generated), 0, 0);
    expect_channel_error(other, 2, AMQP_RESOURCE_LOCKED, text(LOCKED, generated));

    close_connection(owner);
    expect(!queue_exists(named), "the exclusive queue outlived its connection");
    expect(!queue_exists(generated), "the server-named queue outlived its connection");

    char *queue = new_queue(other, "auto", AUTO_DELETE);
    char *first = consume(other, 1, queue, false);
    char *second = consume(other, 1, queue, false);
    amqp_basic_cancel(other, 1, bytes(first));
    ok_rpc(other, "basic.cancel");
    expect_int("consumers left", 1, consumers(other, queue));
    amqp_basic_cancel(other, 1, bytes(second));
    ok_rpc(other, "basic.cancel");
    eventually_gone(queue_exists, queue);

    char *exchange = new_exchange(other, "x", "direct", AUTO_DELETE);
    queue = new_queue(other, "q", TRANSIENT);
    bind_queue(other, queue, exchange, "one");
    bind_queue(other, queue, exchange, "two");
    unbind_queue(other, queue, exchange, "one");
    expect(exchange_exists(exchange), "the exchange went with its first binding");
    unbind_queue(other, queue, exchange, "two");
    eventually_gone(exchange_exists, exchange);
}

/* One value of every kind the library knows, with limits where there are any. */
static amqp_table_t every_kind(void)
{
    amqp_bytes_t all_octets = {.len = 256, .bytes = allocate(256)};
    for (int i = 0; i < 256; i++) {
        ((uint8_t *)all_octets.bytes)[i] = (uint8_t)i;
    }
    amqp_table_entry_t deep[] = {entry("deep", i32(1))};
    amqp_table_entry_t *nested = allocate(2 * sizeof *nested);
    nested[0] = entry("nested", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_TABLE});
    nested[0].value.value.table = table_of(1, memcpy(allocate(sizeof deep), deep, sizeof deep));
    nested[1] = entry("none", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_TABLE});
    nested[1].value.value.table = amqp_empty_table;
    amqp_field_value_t elements[] = {
        i32(-1),
        utf8("two"),
        {.kind = AMQP_FIELD_KIND_VOID},
        {.kind = AMQP_FIELD_KIND_TABLE, .value.table = table_of(2, nested)},
        {.kind = AMQP_FIELD_KIND_ARRAY, .value.array = {.num_entries = 0}},
    };
    amqp_array_t array = {.num_entries = LENGTH(elements),
                          .entries = memcpy(allocate(sizeof elements), elements, sizeof elements)};
    amqp_table_entry_t entries[] = {
        entry("true", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1}),
        entry("false", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 0}),
        entry("i8", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_I8, .value.i8 = INT8_MIN}),
        entry("u8", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_U8, .value.u8 = UINT8_MAX}),
        entry("i16", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_I16, .value.i16 = INT16_MIN}),
        entry("u16", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_U16, .value.u16 = UINT16_MAX}),
        entry("i32", i32(INT32_MIN)),
        entry("u32", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_U32, .value.u32 = UINT32_MAX}),
        entry("i64", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_I64, .value.i64 = INT64_MIN}),
        entry("f32", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_F32, .value.f32 = FLT_MIN}),
        entry("f64", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_F64, .value.f64 = -DBL_MAX}),
        entry("decimal", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_DECIMAL,
                                              .value.decimal = {.decimals = 5, .value = 314159}}),
        entry("utf8", utf8("gr\xc3\xbc\xc3\x9f"
                           "e")),
        entry("empty", utf8("")),
        entry("bytes", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_BYTES, .value.bytes = all_octets}),
        entry("timestamp", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_TIMESTAMP, .value.u64 = 1700000000}),
        entry("table", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_TABLE, .value.table = table_of(2, nested)}),
        entry("array", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_ARRAY, .value.array = array}),
        entry("void", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_VOID}),
        entry("u64", (amqp_field_value_t){.kind = AMQP_FIELD_KIND_U64, .value.u64 = UINT32_MAX}),
    };
    return table_of(LENGTH(entries), memcpy(allocate(sizeof entries), entries, sizeof entries));
}

static amqp_table_t with(amqp_table_t table, amqp_table_entry_t extra)
{
    amqp_table_entry_t *entries = allocate((table.num_entries + 1) * sizeof *entries);
    memcpy(entries, table.entries, table.num_entries * sizeof *entries);
    entries[table.num_entries] = extra;
    return table_of(table.num_entries + 1, entries);
}

static void publish_headers(connection_t connection, const char *exchange, const char *body, amqp_table_t headers)
{
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_HEADERS_FLAG, .headers = headers};
    publish_message(connection, 1, exchange, "", false, &properties, bytes(body));
}

static void tables(void)
{
    connection_t connection = connect_broker();
    char *queue = new_queue(connection, "q", DURABLE);
    const amqp_basic_properties_t sent = {
        /* All fourteen of them: bits 15 to 2. */
        ._flags = 0xfffc,
        .content_type = bytes("application/octet-stream"),
        .content_encoding = bytes("gzip"),
        .headers = every_kind(),
        .delivery_mode = 2,
        .priority = 9,
        .correlation_id = bytes("correlation"),
        .reply_to = bytes("reply"),
        .expiration = bytes("60000"),
        .message_id = bytes("id"),
        .timestamp = 1700000000,
        .type = bytes("type"),
        .user_id = bytes("guest"),
        .app_id = bytes("app"),
        .cluster_id = bytes("cluster"),
    };
    publish_message(connection, 1, "", queue, false, &sent, bytes("body"));
    struct got got = get(connection, 1, queue, true);
    expect(!got.empty, "the message is missing");
    amqp_basic_properties_t *properties = &got.message->properties;
    expect_int("flags", 0xfffc, properties->_flags);
    expect_bytes("content-type", sent.content_type, properties->content_type);
    expect_bytes("content-encoding", sent.content_encoding, properties->content_encoding);
    expect_bytes("headers", encoded(sent.headers), encoded(properties->headers));
    expect_int("delivery-mode", sent.delivery_mode, properties->delivery_mode);
    expect_int("priority", sent.priority, properties->priority);
    expect_bytes("correlation-id", sent.correlation_id, properties->correlation_id);
    expect_bytes("reply-to", sent.reply_to, properties->reply_to);
    expect_bytes("expiration", sent.expiration, properties->expiration);
    expect_bytes("message-id", sent.message_id, properties->message_id);
    expect_int("timestamp", sent.timestamp, properties->timestamp);
    expect_bytes("type", sent.type, properties->type);
    expect_bytes("user-id", sent.user_id, properties->user_id);
    expect_bytes("app-id", sent.app_id, properties->app_id);
    expect_bytes("cluster-id", sent.cluster_id, properties->cluster_id);
    expect_text("body", "body", got.message->body);

    amqp_table_t arguments = with(every_kind(), entry("x-message-ttl", i32(1800000)));
    char *typed = declare_queue(connection, unique("typed"), DURABLE, arguments);
    declare_queue(connection, typed, DURABLE, arguments);
    open_channel(connection, 2);
    amqp_queue_declare(connection, 2, bytes(typed), 0, 1, 0, 0, amqp_empty_table);
    expect_channel_error(connection, 2, AMQP_PRECONDITION_FAILED,
                         text("PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '%s' in vhost '/': "
                              "received none but current is the value '1800000' of type 'signedint'",
                              typed));

    /* A headers exchange compares values by type, so a match proves that the binding's table came through whole. */
    char *exchange = declare_exchange(connection, unique("headers"), "headers", TRANSIENT, every_kind());
    amqp_table_t binding = with(every_kind(), entry("x-match", utf8("all")));
    amqp_queue_bind(connection, 1, bytes(typed), bytes(exchange), amqp_empty_bytes, binding);
    ok_rpc(connection, "queue.bind");
    publish_headers(connection, exchange, "same", every_kind());
    for (int i = 0; i < every_kind().num_entries; i++) {
        amqp_table_t changed = every_kind();
        /* A void binding value asks for presence only, any other one for equality. */
        if (changed.entries[i].value.kind == AMQP_FIELD_KIND_VOID) {
            changed.entries[i].key = bytes("missing");
        } else {
            changed.entries[i].value = utf8("changed");
        }
        publish_headers(connection, exchange, text("another-%s", (char *)every_kind().entries[i].key.bytes), changed);
    }
    expect_text("messages matching the typed binding", "same", bytes(drain(connection, 1, typed)));
    unbind_queue(connection, typed, exchange, "");
    publish_headers(connection, exchange, "still-bound", every_kind());
    amqp_queue_unbind(connection, 1, bytes(typed), bytes(exchange), amqp_empty_bytes, binding);
    ok_rpc(connection, "queue.unbind");
    publish_headers(connection, exchange, "unbound", every_kind());
    expect_text("after unbinding", "still-bound", bytes(drain(connection, 1, typed)));
}

static const char *const QUEUES[] = {"a", "b", "star", "hash", "all", "middle", "two", "other"};
static char *queue_names[LENGTH(QUEUES)];

static const char *named_queue(const char *label)
{
    for (size_t i = 0; i < LENGTH(QUEUES); i++) {
        if (strcmp(QUEUES[i], label) == 0) {
            return queue_names[i];
        }
    }
    fail("no queue %s", label);
}

static void bind_label(connection_t connection, const char *label, const char *exchange, const char *key)
{
    bind_queue(connection, named_queue(label), exchange, key);
}

/* The labels of the queues that have to get the message, once each, are separated by spaces. */
static void expect_routes(connection_t connection, const char *expected, const char *exchange, const char *key,
                          amqp_table_t headers)
{
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_HEADERS_FLAG, .headers = headers};
    publish_message(connection, 1, exchange, key, *expected != '\0', headers.num_entries ? &properties : NULL,
                    bytes("x"));
    char *actual = "";
    for (size_t i = 0; i < LENGTH(QUEUES); i++) {
        char *got = drain(connection, 1, queue_names[i]);
        if (*got != '\0') {
            expect_text(QUEUES[i], "x", bytes(got));
            actual = text("%s%s%s", actual, *actual ? " " : "", QUEUES[i]);
        }
    }
    expect_text(text("queues for '%s' in %s", key, exchange), expected, bytes(actual));
}

static void exchanges(void)
{
    connection_t connection = connect_broker();
    amqp_table_t none = amqp_empty_table;
    for (size_t i = 0; i < LENGTH(QUEUES); i++) {
        queue_names[i] = new_queue(connection, QUEUES[i], TRANSIENT);
    }

    char *direct = new_exchange(connection, "direct", "direct", DURABLE);
    bind_label(connection, "a", direct, "one");
    bind_label(connection, "a", direct, "two");
    bind_label(connection, "b", direct, "two");
    expect_routes(connection, "a", direct, "one", none);
    expect_routes(connection, "a b", direct, "two", none);
    expect_routes(connection, "", direct, "three", none);
    unbind_queue(connection, named_queue("a"), direct, "two");
    expect_routes(connection, "b", direct, "two", none);

    char *fanout = new_exchange(connection, "fanout", "fanout", TRANSIENT);
    bind_label(connection, "a", fanout, "");
    bind_label(connection, "b", fanout, "ignored");
    expect_routes(connection, "a b", fanout, "anything", none);

    char *topic = new_exchange(connection, "topic", "topic", TRANSIENT);
    bind_label(connection, "star", topic, "*.orange.*");
    bind_label(connection, "hash", topic, "lazy.#");
    bind_label(connection, "hash", topic, "*.*.rabbit");
    bind_label(connection, "all", topic, "#");
    bind_label(connection, "middle", topic, "quick.#.fox");
    bind_label(connection, "two", topic, "*.*");
    expect_routes(connection, "star hash all", topic, "lazy.orange.rabbit", none);
    expect_routes(connection, "star all middle", topic, "quick.orange.fox", none);
    expect_routes(connection, "all middle two", topic, "quick.fox", none);
    expect_routes(connection, "hash all", topic, "lazy", none);
    expect_routes(connection, "all", topic, "", none);
    expect_routes(connection, "all two", topic, ".", none);

    char *headers = new_exchange(connection, "headers", "headers", TRANSIENT);
    const char *matches[][2] = {{"a", "all"}, {"b", "any"}};
    for (size_t i = 0; i < LENGTH(matches); i++) {
        amqp_table_entry_t binding[] = {entry("x-match", utf8(matches[i][1])), entry("kind", utf8("report")),
                                        entry("pages", i32(3))};
        amqp_queue_bind(connection, 1, bytes(named_queue(matches[i][0])), bytes(headers), amqp_empty_bytes,
                        table_of(3, binding));
        ok_rpc(connection, "queue.bind");
    }
    amqp_table_entry_t both[] = {entry("kind", utf8("report")), entry("pages", i32(3)), entry("more", i32(1))};
    amqp_table_entry_t one[] = {entry("kind", utf8("report")), entry("pages", i32(4))};
    amqp_table_entry_t other_type[] = {entry("pages", utf8("3"))};
    expect_routes(connection, "a b", headers, "both", table_of(3, both));
    expect_routes(connection, "b", headers, "one of two", table_of(2, one));
    expect_routes(connection, "", headers, "another type", table_of(1, other_type));
    expect_routes(connection, "", headers, "no headers", none);

    char *source = new_exchange(connection, "source", "topic", TRANSIENT);
    amqp_exchange_bind(connection, 1, bytes(direct), bytes(source), bytes("two.#"), none);
    ok_rpc(connection, "exchange.bind");
    amqp_exchange_bind(connection, 1, bytes(fanout), bytes(source), bytes("#.all"), none);
    ok_rpc(connection, "exchange.bind");
    bind_label(connection, "b", direct, "two.x.all");
    /* b is reached through both exchanges but gets one copy. */
    expect_routes(connection, "a b", source, "two.x.all", none);
    amqp_exchange_unbind(connection, 1, bytes(fanout), bytes(source), bytes("#.all"), none);
    ok_rpc(connection, "exchange.unbind");
    expect_routes(connection, "b", source, "two.x.all", none);

    char *alternate = new_exchange(connection, "alternate", "fanout", TRANSIENT);
    amqp_table_entry_t arguments[] = {entry("alternate-exchange", utf8(alternate))};
    char *primary = declare_exchange(connection, unique("primary"), "direct", TRANSIENT, table_of(1, arguments));
    bind_label(connection, "other", alternate, "");
    bind_label(connection, "a", primary, "known");
    expect_routes(connection, "a", primary, "known", none);
    expect_routes(connection, "other", primary, "unknown", none);
}

static amqp_bytes_t noise(size_t size)
{
    static uint32_t state = 1;
    amqp_bytes_t body = {.len = size, .bytes = allocate(size + 1)};
    for (size_t i = 0; i < size; i++) {
        state = state * 1664525 + 1013904223;
        ((uint8_t *)body.bytes)[i] = (uint8_t)(state >> 24);
    }
    return body;
}

static void large_message(void)
{
    const int frame_maxes[] = {AMQP_DEFAULT_FRAME_SIZE, 8192};
    for (size_t i = 0; i < LENGTH(frame_maxes); i++) {
        connection_t connection = connect_with(frame_maxes[i]);
        expect_int("negotiated frame_max", frame_maxes[i], amqp_get_frame_max(connection));
        char *queue = new_queue(connection, text("q%d", frame_maxes[i]), DURABLE);
        /* Around one and two frames' worth an off-by-one in splitting the body would show. */
        size_t payload = (size_t)frame_maxes[i] - 8;
        amqp_bytes_t bodies[] = {noise(10 * 1024 * 1024), noise(0),           noise(payload - 1),
                                 noise(payload),          noise(payload + 1), noise(2 * payload)};
        confirm_select(connection, 1);
        for (size_t j = 0; j < LENGTH(bodies); j++) {
            publish_message(connection, 1, "", queue, false, NULL, bodies[j]);
        }
        await_acks(connection, 1, LENGTH(bodies));
        consume(connection, 1, queue, true);
        for (size_t j = 0; j < LENGTH(bodies); j++) {
            expect_bytes(text("body of %zu bytes", bodies[j].len), bodies[j], receive(connection)->message.body);
        }
    }
}

static void errors(void)
{
    connection_t connection = connect_broker();
    char *queue = new_queue(connection, "q", DURABLE);
    char *exchange = new_exchange(connection, "x", "direct", TRANSIENT);
    char *missing = unique("missing");
    char *no_queue = text("NOT_FOUND - no queue '%s' in vhost '/'", missing);
    char *no_exchange = text("NOT_FOUND - no exchange '%s' in vhost '/'", missing);
    amqp_table_t none = amqp_empty_table;

    open_channel(connection, 2);
    amqp_queue_declare(connection, 2, bytes(missing), 1, 0, 0, 0, none);
    expect_channel_error(connection, 2, AMQP_NOT_FOUND, no_queue);
    open_channel(connection, 2);
    amqp_basic_consume(connection, 2, bytes(missing), amqp_empty_bytes, 0, 0, 0, none);
    expect_channel_error(connection, 2, AMQP_NOT_FOUND, no_queue);
    open_channel(connection, 2);
    amqp_queue_bind(connection, 2, bytes(queue), bytes(missing), amqp_empty_bytes, none);
    expect_channel_error(connection, 2, AMQP_NOT_FOUND, no_exchange);
    open_channel(connection, 2);
    amqp_exchange_declare(connection, 2, bytes(missing), bytes("direct"), 1, 0, 0, 0, none);
    expect_channel_error(connection, 2, AMQP_NOT_FOUND, no_exchange);
    open_channel(connection, 2);
    publish(connection, 2, missing, "key", "lost");
    await_channel_error(connection, 2, AMQP_NOT_FOUND, no_exchange);

    open_channel(connection, 2);
    amqp_queue_declare(connection, 2, bytes(queue), 0, 0, 0, 0, none);
    expect_channel_error(connection, 2, AMQP_PRECONDITION_FAILED,
                         text("PRECONDITION_FAILED - inequivalent arg 'durable' for queue '%s' in vhost '/': "
                              "received 'false' but current is 'true'",
                              queue));
    open_channel(connection, 2);
    amqp_table_entry_t limit[] = {entry("x-max-length", i32(10))};
    amqp_queue_declare(connection, 2, bytes(queue), 0, 1, 0, 0, table_of(1, limit));
    expect_channel_error(connection, 2, AMQP_PRECONDITION_FAILED,
                         text("PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue '%s' in vhost '/': "
                              "received the value '10' of type 'signedint' but current is none",
                              queue));
    open_channel(connection, 2);
    amqp_exchange_declare(connection, 2, bytes(exchange), bytes("topic"), 0, 0, 0, 0, none);
    expect_channel_error(connection, 2, AMQP_PRECONDITION_FAILED,
                         text("PRECONDITION_FAILED - inequivalent arg 'type' for exchange '%s' in vhost '/': "
                              "received 'topic' but current is 'direct'",
                              exchange));
    open_channel(connection, 2);
    amqp_queue_declare(connection, 2, bytes("amq.interop"), 0, 0, 0, 0, none);
    expect_channel_error(connection, 2, AMQP_ACCESS_REFUSED,
                         "ACCESS_REFUSED - queue name 'amq.interop' contains reserved prefix 'amq.*'");
    open_channel(connection, 2);
    ack(connection, 2, 99, false);
    await_channel_error(connection, 2, AMQP_PRECONDITION_FAILED, "PRECONDITION_FAILED - unknown delivery tag 99");

    publish(connection, 1, "", queue, "still-here");
    expect_text("other channels of the connection", "still-here", bytes(drain(connection, 1, queue)));

    connection_t refused;
    expect_refused(try_connect(&refused, "/", "wrong", AMQP_DEFAULT_FRAME_SIZE), AMQP_ACCESS_REFUSED,
                   "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the "
                   "broker logfile.");
    expect_refused(try_connect(&refused, missing, "guest", AMQP_DEFAULT_FRAME_SIZE), AMQP_NOT_ALLOWED,
                   text("NOT_ALLOWED - vhost %s not found", missing));
}

static void commit(connection_t connection)
{
    amqp_tx_commit(connection, 2);
    ok_rpc(connection, "tx.commit");
}

static void rollback(connection_t connection)
{
    amqp_tx_rollback(connection, 2);
    ok_rpc(connection, "tx.rollback");
}

static void transactions(void)
{
    connection_t connection = connect_broker();
    amqp_basic_properties_t properties = persistent();
    char *queue = new_queue(connection, "q", DURABLE);
    open_channel(connection, 2);
    amqp_tx_select(connection, 2);
    ok_rpc(connection, "tx.select");
    for (int i = 0; i < 3; i++) {
        publish_message(connection, 2, "", queue, false, &properties, bytes(text("m%d", i)));
    }
    /* The channel handles its methods in order, so with this answer the publishes are past the network. */
    expect_int("before commit", 0, ready(connection, 2, queue));
    commit(connection);
    expect_int("after commit", 3, ready(connection, 1, queue));
    publish(connection, 2, "", queue, "discarded");
    rollback(connection);
    commit(connection);
    expect_int("after rollback", 3, ready(connection, 1, queue));

    ack(connection, 2, expect_got(connection, queue, "m0", false).tag, false);
    commit(connection);
    ack(connection, 2, expect_got(connection, queue, "m1", false).tag, false);
    rollback(connection);
    close_channel(connection, 2);
    expect_text("messages whose ack was not committed", "m1 m2", bytes(drain(connection, 1, queue)));

    open_channel(connection, 2);
    amqp_tx_commit(connection, 2);
    expect_channel_error(connection, 2, AMQP_PRECONDITION_FAILED, "PRECONDITION_FAILED - channel is not transactional");
}

static void reconnect(void)
{
    connection_t connection = connect_broker();
    char *queue = new_queue(connection, "q", DURABLE);
    for (int i = 0; i < 5; i++) {
        publish(connection, 1, "", queue, text("m%d", i));
    }
    consume(connection, 1, queue, false);
    for (int i = 0; i < 5; i++) {
        expect_delivery(connection, text("m%d", i), false);
    }
    ack(connection, 1, 2, true);
    /* The channel handles its methods in order, so with this answer the acks are past the network. */
    expect_int("ready", 0, ready(connection, 1, queue));

    reset_connection(connection);
    connection = connect_broker();
    consume(connection, 1, queue, false);
    for (int i = 2; i < 5; i++) {
        expect_delivery(connection, text("m%d", i), true);
    }
    ack(connection, 1, 3, true);
    publish(connection, 1, "", queue, "fresh");
    expect_delivery(connection, "fresh", false);
    ack(connection, 1, 4, false);
    close_connection(connection);
    expect_int("messages left", 0, ready(connect_broker(), 1, queue));
}

static void hello_world(void)
{
    connection_t receiver = connect_broker();
    char *queue = new_queue(receiver, "hello", TRANSIENT);
    consume(receiver, 1, queue, true);
    publish(connect_broker(), 1, "", queue, "Hello World!");
    expect_delivery(receiver, "Hello World!", false);
}

static void work_queue(void)
{
    connection_t sender = connect_broker(), busy = connect_broker(), idle = connect_broker();
    amqp_basic_properties_t properties = persistent();
    char *queue = new_queue(sender, "task_queue", DURABLE);
    qos(busy, 1, false);
    qos(idle, 1, false);
    consume(busy, 1, queue, false);
    consume(idle, 1, queue, false);
    for (int i = 0; i < 4; i++) {
        publish_message(sender, 1, "", queue, false, &properties, bytes(text("%d", i)));
    }
    /* Both hold one task each; whoever acks gets the next one, so a busy worker never has a backlog. */
    bool done[4] = {false};
    amqp_envelope_t *slow = receive(busy);
    done[*(char *)slow->message.body.bytes - '0'] = true;
    for (int i = 0; i < 3; i++) {
        amqp_envelope_t *task = receive(idle);
        done[*(char *)task->message.body.bytes - '0'] = true;
        ack(idle, 1, task->delivery_tag, false);
    }
    expect(done[0] && done[1] && done[2] && done[3], "a task was not handed out");
    expect_int("tasks waiting", 0, ready(busy, 1, queue));
    nothing_more(busy);
    ack(busy, 1, slow->delivery_tag, false);
    close_connection(busy);
    close_connection(idle);
    expect_int("tasks left", 0, ready(sender, 1, queue));
}

/* An exclusive queue bound to the exchange and being consumed from. */
static connection_t subscriber(const char *exchange, int key_count, const char *const *keys)
{
    connection_t connection = connect_broker();
    char *queue = declare_queue(connection, "", EXCLUSIVE, amqp_empty_table);
    for (int i = 0; i < key_count; i++) {
        bind_queue(connection, queue, exchange, keys[i]);
    }
    consume(connection, 1, queue, true);
    return connection;
}

static void publish_subscribe(void)
{
    connection_t sender = connect_broker();
    char *logs = new_exchange(sender, "logs", "fanout", TRANSIENT);
    connection_t first = subscriber(logs, 1, (const char *[]){""});
    connection_t second = subscriber(logs, 1, (const char *[]){""});
    publish(sender, 1, logs, "", "info: to everybody");
    expect_delivery(first, "info: to everybody", false);
    expect_delivery(second, "info: to everybody", false);
}

static void routing(void)
{
    connection_t sender = connect_broker();
    char *logs = new_exchange(sender, "direct_logs", "direct", TRANSIENT);
    connection_t all = subscriber(logs, 3, (const char *[]){"info", "warning", "error"});
    connection_t errors_only = subscriber(logs, 1, (const char *[]){"error"});
    const char *severities[] = {"info", "warning", "debug", "error", "info"};
    for (size_t i = 0; i < LENGTH(severities); i++) {
        publish(sender, 1, logs, severities[i], severities[i]);
    }
    expect_delivery(all, "info", false);
    expect_delivery(all, "warning", false);
    expect_delivery(all, "error", false);
    expect_delivery(all, "info", false);
    expect_delivery(errors_only, "error", false);
    nothing_more(errors_only);
}

static void topics(void)
{
    connection_t sender = connect_broker();
    char *logs = new_exchange(sender, "topic_logs", "topic", TRANSIENT);
    connection_t kern = subscriber(logs, 1, (const char *[]){"kern.*"});
    connection_t critical = subscriber(logs, 1, (const char *[]){"*.critical"});
    const char *keys[] = {"kern.info", "cron.critical", "cron.info", "kern.critical"};
    for (size_t i = 0; i < LENGTH(keys); i++) {
        publish(sender, 1, logs, keys[i], keys[i]);
    }
    expect_delivery(kern, "kern.info", false);
    expect_delivery(kern, "kern.critical", false);
    expect_delivery(critical, "cron.critical", false);
    expect_delivery(critical, "kern.critical", false);
}

static int fibonacci(int n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

/* Without a reply queue, the client declares an exclusive one. */
static void rpc(const char *reply_queue)
{
    connection_t server = connect_broker(), client = connect_broker();
    char *requests = new_queue(server, "rpc_queue", TRANSIENT);
    qos(server, 1, false);
    consume(server, 1, requests, false);
    if (reply_queue == NULL) {
        reply_queue = declare_queue(client, "", EXCLUSIVE, amqp_empty_table);
    }
    consume(client, 1, reply_queue, true);

    const int numbers[] = {10, 7};
    for (size_t i = 0; i < LENGTH(numbers); i++) {
        amqp_basic_properties_t properties = {
            ._flags = AMQP_BASIC_CORRELATION_ID_FLAG | AMQP_BASIC_REPLY_TO_FLAG,
            .correlation_id = bytes(text("call %zu", i)),
            .reply_to = bytes(reply_queue),
        };
        publish_message(client, 1, "", requests, true, &properties, bytes(text("%d", numbers[i])));

        amqp_envelope_t *request = receive(server);
        amqp_bytes_t argument = request->message.body;
        char *result = text("%d", fibonacci(atoi(text("%.*s", (int)argument.len, (char *)argument.bytes))));
        amqp_basic_properties_t answer = {._flags = AMQP_BASIC_CORRELATION_ID_FLAG,
                                          .correlation_id = request->message.properties.correlation_id};
        ok_status(amqp_basic_publish(server, 1, amqp_empty_bytes, request->message.properties.reply_to, 0, 0, &answer,
                                     bytes(result)),
                  "basic.publish");
        ack(server, 1, request->delivery_tag, false);

        amqp_envelope_t *reply = receive(client);
        expect_text("reply", text("%d", fibonacci(numbers[i])), reply->message.body);
        expect_bytes("correlation-id", properties.correlation_id, reply->message.properties.correlation_id);
    }
    close_connection(server);
}

static void publisher_confirms(void)
{
    connection_t connection = connect_broker();
    char *queue = declare_queue(connection, "", EXCLUSIVE, amqp_empty_table);
    confirm_select(connection, 1);
    publish(connection, 1, "", queue, "one by one");
    await_acks(connection, 1, 1);
    for (int i = 0; i < 50; i++) {
        publish(connection, 1, "", queue, text("batch %d", i));
    }
    await_acks(connection, 2, 51);
    expect_int("confirmed messages", 51, ready(connection, 1, queue));
}

static void tutorials(void)
{
    hello_world();
    work_queue();
    publish_subscribe();
    routing();
    topics();
    rpc(NULL);
    rpc("amq.rabbitmq.reply-to");
    publisher_confirms();
}

static const struct interop_case CASES[] = {
    {"publish_confirms", publish_confirms},
    {"consume_acks", consume_acks},
    {"prefetch", prefetch},
    {"get", basic_get},
    {"reject_requeue", reject_requeue},
    {"returns", returns},
    {"exclusive_auto_delete", exclusive_auto_delete},
    {"tables", tables},
    {"exchanges", exchanges},
    {"large_message", large_message},
    {"errors", errors},
    {"transactions", transactions},
    {"reconnect", reconnect},
    {"tutorials", tutorials},
};

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s HOST PORT\n", argv[0]);
        return EXIT_FAILURE;
    }
    return run_cases(CASES, LENGTH(CASES), argv[1], atoi(argv[2]));
}
