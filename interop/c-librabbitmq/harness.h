#pragma once

#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdbool.h>
#include <stdint.h>

typedef amqp_connection_state_t connection_t;

struct interop_case {
    const char *name;
    void (*run)(void);
};

int run_cases(const struct interop_case *cases, size_t count, const char *host, int port);

/* Ends the running case as failed. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void expect(bool condition, const char *what);
void expect_int(const char *what, int64_t expected, int64_t actual);
void expect_text(const char *what, const char *expected, amqp_bytes_t actual);
void expect_bytes(const char *what, amqp_bytes_t expected, amqp_bytes_t actual);

/* Formats into memory that lives until the case ends. */
char *text(const char *format, ...) __attribute__((format(printf, 1, 2)));
amqp_bytes_t bytes(const char *string);
void *allocate(size_t size);

/* A name no other run uses; whatever is declared under it is deleted after the case. */
char *unique(const char *suffix);

connection_t connect_broker(void);
connection_t connect_with(int frame_max);
amqp_rpc_reply_t try_connect(connection_t *connection, const char *vhost, const char *password, int frame_max);
void open_channel(connection_t connection, amqp_channel_t channel);
void close_channel(connection_t connection, amqp_channel_t channel);
void close_connection(connection_t connection);
/* Leaves without connection.close and resets the TCP connection. */
void reset_connection(connection_t connection);

void ok_reply(amqp_rpc_reply_t reply, const char *what);
void ok_rpc(connection_t connection, const char *what);
void ok_status(int status, const char *what);
/* The last RPC must have made the broker close the channel, and only the channel. */
void expect_channel_error(connection_t connection, amqp_channel_t channel, int code, const char *reply_text);
/* The same for methods without a reply. */
void await_channel_error(connection_t connection, amqp_channel_t channel, int code, const char *reply_text);
void expect_refused(amqp_rpc_reply_t reply, int code, const char *reply_text);

enum { TRANSIENT = 0, DURABLE = 1, EXCLUSIVE = 2, AUTO_DELETE = 4 };

char *declare_queue(connection_t connection, const char *name, int flags, amqp_table_t arguments);
char *new_queue(connection_t connection, const char *suffix, int flags);
char *declare_exchange(connection_t connection, const char *name, const char *type, int flags, amqp_table_t arguments);
char *new_exchange(connection_t connection, const char *suffix, const char *type, int flags);
void bind_queue(connection_t connection, const char *queue, const char *exchange, const char *key);
void unbind_queue(connection_t connection, const char *queue, const char *exchange, const char *key);
int64_t ready(connection_t connection, amqp_channel_t channel, const char *queue);
int64_t consumers(connection_t connection, const char *queue);
bool queue_exists(const char *queue);
bool exchange_exists(const char *exchange);
void eventually_gone(bool (*exists)(const char *), const char *name);

void publish(connection_t connection, amqp_channel_t channel, const char *exchange, const char *key, const char *body);
void publish_message(connection_t connection, amqp_channel_t channel, const char *exchange, const char *key,
                     bool mandatory, const amqp_basic_properties_t *properties, amqp_bytes_t body);
amqp_basic_properties_t persistent(void);

char *consume(connection_t connection, amqp_channel_t channel, const char *queue, bool no_ack);
/* The memory of deliveries and messages lives until the case ends. */
amqp_envelope_t *receive(connection_t connection);
void expect_delivery(connection_t connection, const char *body, bool redelivered);
void nothing_more(connection_t connection);
void ack(connection_t connection, amqp_channel_t channel, uint64_t tag, bool multiple);

struct got {
    bool empty;
    uint64_t tag;
    bool redelivered;
    uint32_t remaining;
    char *exchange;
    char *routing_key;
    amqp_message_t *message;
};

struct got get(connection_t connection, amqp_channel_t channel, const char *queue, bool no_ack);
/* Takes everything that is ready with basic.get; the bodies are joined with spaces. */
char *drain(connection_t connection, amqp_channel_t channel, const char *queue);

struct event {
    amqp_method_number_t method;
    uint64_t tag;
    bool multiple;
    int reply_code;
    char *reply_text;
    char *exchange;
    char *routing_key;
    amqp_message_t *message;
};

/* The next basic.ack, basic.nack or basic.return. */
struct event next_event(connection_t connection);
void confirm_select(connection_t connection, amqp_channel_t channel);
/* Waits until the tags up to this one are acked, none nacked. */
void await_acks(connection_t connection, uint64_t first, uint64_t last);

amqp_table_entry_t entry(const char *key, amqp_field_value_t value);
amqp_field_value_t utf8(const char *value);
amqp_field_value_t i32(int32_t value);
amqp_table_t table_of(int count, amqp_table_entry_t *entries);
amqp_bytes_t encoded(amqp_table_t table);
