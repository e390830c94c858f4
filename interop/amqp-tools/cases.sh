# One case: cases.sh CASE HOST PORT. Fails with the reason as the last line on stderr.
set -euo pipefail
trap 'echo "line $LINENO: $BASH_COMMAND failed" >&2' ERR

test_case=$1
broker=(--server="$2" --port="$3")
prefix=interop.tools.$(od -An -N4 -tx4 /dev/urandom | tr -d ' ').$test_case
work=$(mktemp -d)
# For the commands of consumers that are to be slow.
await_release="until [ -e '$work/release' ]; do sleep 0.02; done"
queues=()
consumers=()

clean_up() {
    local consumer queue
    for consumer in "${consumers[@]}"; do
        kill "$consumer" 2>/dev/null || true
    done
    for queue in "${queues[@]}"; do
        amqp-delete-queue "${broker[@]}" -q "$queue" >/dev/null 2>&1 || true
    done
    rm -rf "$work"
}
trap clean_up EXIT

fail() {
    echo "$*" >&2
    exit 1
}

equal() {
    [ "$2" = "$3" ] || fail "$1: expected '$2', got '$3'"
}

# Waits, within limits, until the command succeeds.
eventually() {
    local deadline=$((SECONDS + 5))
    until "$@"; do
        ((SECONDS < deadline)) || fail "not in time: $*"
        sleep 0.02
    done
}

# Sets $queue. (Not printed, as a subshell could not note the name for cleaning up.)
declare_queue() {
    queue=$prefix.$1
    shift
    queues+=("$queue")
    equal 'declared queue' "$queue" "$(amqp-declare-queue "${broker[@]}" -q "$queue" "$@")"
}

publish() {
    amqp-publish "${broker[@]}" "$@"
}

# publish_to QUEUE BODY...
publish_to() {
    local name=$1 body
    shift
    for body in "$@"; do
        publish -r "$name" -b "$body"
    done
}

get() {
    amqp-get "${broker[@]}" -q "$1"
}

# Everything that is ready in the queue; amqp-get exits with 2 when it is empty.
drain() {
    local body status all=
    while body=$(get "$1") && status=0 || status=$?; ((status == 0)); do
        all+=${all:+ }$body
    done
    ((status == 2)) || fail "amqp-get exited with $status"
    printf '%s' "$all"
}

empty() {
    local status=0
    get "$1" >/dev/null || status=$?
    equal "exit status of amqp-get for an empty queue" 2 "$status"
}

# consume OUTPUT OPTION... COMMAND...: in the background; sets $consumer.
consume() {
    local output=$work/$1
    shift
    : >"$output"
    amqp-consume "${broker[@]}" "$@" >"$output" 2>"$output.errors" &
    consumer=$!
    consumers+=("$consumer")
}

has() {
    [ -s "$work/$1" ]
}

holds() {
    [ "$(<"$work/$1")" = "$2" ]
}

# refused TEXT COMMAND...: the command must fail with the broker's words on stderr.
refused() {
    local expected=$1 errors
    shift
    if errors=$("$@" 2>&1 >/dev/null); then
        fail "$* succeeded instead of failing with $expected"
    fi
    equal "error of $1" "$expected" "${errors#*: server }"
}

# subscribe OUTPUT EXCHANGE KEY: consumes from an exclusive queue bound to the exchange. What comes before the
# binding is lost, hence the probes. (The tool does not bind with an empty key, not even to a fanout exchange.)
subscribe() {
    consume "$1" -x -e "$2" -r "$3" -A -- sh -c 'cat; echo'
    eventually probe "$1" "$2" "${3//[*#]/probe}"
}

probe() {
    publish -e "$2" -r "$3" -b "$prefix probe"
    has "$1"
}

# The bodies a subscriber has got so far, without the probes and what others publish to the shared exchanges.
received() {
    sed -n "s/^$prefix \(.*\)/\1/p" "$work/$1" | grep -v '^probe$' | tr '\n' ' '
}

got() {
    [ "$(received "$1")" = "$2 " ]
}

case_consume_acks() {
    declare_queue q -d
    publish_to "$queue" m1 m2 m3 m4 m5 m6
    equal 'consumed' m1m2m3 "$(amqp-consume "${broker[@]}" -q "$queue" -c 3 cat)"
    # A command that fails leaves its message unacked.
    equal 'seen by a failing command' m4 "$(amqp-consume "${broker[@]}" -q "$queue" -c 1 -- sh -c 'cat; false')"
    equal 'unacked message' m4 "$(get "$queue")"
    # Without acks, the broker is done with a message when it has sent it, so the last one goes along.
    equal 'seen without acks' m5 "$(amqp-consume "${broker[@]}" -q "$queue" -A -c 1 -- sh -c 'cat; false')"
    empty "$queue"
}

case_prefetch() {
    declare_queue q
    publish_to "$queue" m1 m2 m3 m4
    consume out -q "$queue" -p 2 -c 3 -- sh -c "cat; $await_release"
    eventually has out
    equal 'first message beyond the prefetch count' m3 "$(get "$queue")"
    touch "$work/release"
    wait "$consumer"
    equal 'consumed' m1m2m4 "$(<"$work/out")"
    empty "$queue"
}

case_get() {
    declare_queue q -d
    empty "$queue"
    publish -r "$queue" -p -C text/plain -E identity -t reply -H 'key: value' -H 'other: value' -b first
    printf 'from\nstdin\n' | publish -r "$queue"
    printf 'line 1\nline 2\n' | publish -r "$queue" -l
    equal 'with properties' first "$(get "$queue")"
    get "$queue" >"$work/stdin"
    printf 'from\nstdin\n' | cmp - "$work/stdin"
    equal 'first line' 'line 1' "$(get "$queue")"
    equal 'second line' 'line 2' "$(get "$queue")"
    empty "$queue"
}

gone() {
    local errors
    ! errors=$(get "$1" 2>&1) && [[ $errors == *"404, message: NOT_FOUND - no queue '$1' in vhost '/'" ]]
}

case_exclusive_auto_delete() {
    local name
    consume exclusive -x cat
    eventually has exclusive.errors
    name=$(sed -n 's/^Server provided queue name: //p' "$work/exclusive.errors")
    [[ $name =~ ^amq\.gen-[A-Za-z0-9_-]{22}$ ]] || fail "server-generated name '$name'"
    local locked="RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '$name' in vhost '/'. It could be \
originally declared on another connection or the exclusive property value does not match that of the original \
declaration."
    # A reply text that does not fit into a short string is cut.
    ((${#locked} <= 255)) || locked=${locked:0:252}...
    refused "channel error 405, message: $locked" get "$name"
    kill "$consumer"
    eventually gone "$name"

    # With an exchange, a named queue is declared as auto-delete.
    name=$prefix.auto
    consume auto -q "$name" -e amq.direct -r "$name" -c 1 cat
    eventually probe auto amq.direct "$name"
    wait "$consumer"
    eventually gone "$name"
}

case_exchanges() {
    local key=$prefix
    subscribe direct amq.direct "$key.one"
    subscribe star amq.topic "$key.*.fox"
    subscribe hash amq.topic "$key.#"
    subscribe fanout amq.fanout "$key.ignored"
    publish -e amq.direct -r "$key.one" -b "$prefix d1"
    publish -e amq.direct -r "$key.two" -b "$prefix d2"
    publish -e amq.direct -r "$key.one" -b "$prefix end"
    publish -e amq.topic -r "$key" -b "$prefix t1"
    publish -e amq.topic -r "$key.quick.fox" -b "$prefix t2"
    publish -e amq.topic -r "$key.quick.brown.fox" -b "$prefix t3"
    publish -e amq.topic -r "$key.other.fox" -b "$prefix end"
    publish -e amq.fanout -r anything -b "$prefix f1"
    publish -e amq.fanout -b "$prefix end"
    eventually got direct 'd1 end'
    eventually got star 't2 end'
    eventually got hash 't1 t2 t3 end'
    eventually got fanout 'f1 end'
}

case_large_message() {
    declare_queue q -d
    # 128 KiB are a frame less its 8 octets of framing, plus as many.
    local size
    for size in 10485760 131071 131072 131064 0; do
        head -c "$size" /dev/urandom >"$work/sent"
        publish -r "$queue" <"$work/sent"
        get "$queue" >"$work/got"
        cmp "$work/sent" "$work/got"
    done
    empty "$queue"
}

case_errors() {
    local missing=$prefix.missing
    declare_queue q -d
    refused "channel error 404, message: NOT_FOUND - no queue '$missing' in vhost '/'" get "$missing"
    refused "channel error 404, message: NOT_FOUND - no queue '$missing' in vhost '/'" \
        amqp-consume "${broker[@]}" -q "$missing" -c 1 cat
    refused "channel error 404, message: NOT_FOUND - no exchange '$missing' in vhost '/'" \
        publish -e "$missing" -r key -b lost
    refused "channel error 406, message: PRECONDITION_FAILED - inequivalent arg 'durable' for queue '$queue' in \
vhost '/': received 'false' but current is 'true'" amqp-declare-queue "${broker[@]}" -q "$queue"
    publish_to "$queue" kept
    refused "channel error 406, message: PRECONDITION_FAILED - queue '$queue' in vhost '/' not empty" \
        amqp-delete-queue "${broker[@]}" -q "$queue" -e
    equal 'messages in the deleted queue' 1 "$(amqp-delete-queue "${broker[@]}" -q "$queue")"
    equal 'messages in a queue that is not there' 0 "$(amqp-delete-queue "${broker[@]}" -q "$queue")"
    refused "connection error 403, message: ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. \
For details see the broker logfile." publish --username=guest --password=wrong -r key -b lost
    refused "connection error 530, message: NOT_ALLOWED - vhost $missing not found" \
        publish --vhost="$missing" -r key -b lost
}

case_reconnect() {
    declare_queue q -d
    publish_to "$queue" m1 m2 m3
    # Acks m1, then holds on to m2 for as long as the consumer lives.
    consume out -q "$queue" -- sh -c "cat
        if [ -e '$work/acked' ]; then while kill -0 \$PPID; do sleep 0.1; done; fi
        touch '$work/acked'"
    eventually holds out m1m2
    kill -KILL "$consumer"
    wait "$consumer" 2>/dev/null || true
    # m3 has been delivered to it as well, there being no prefetch count.
    equal 'after the consumer was killed' m2m3 "$(timeout 10 amqp-consume "${broker[@]}" -q "$queue" -c 2 cat)"
    empty "$queue"
}

case_tutorials() {
    # Hello world.
    declare_queue hello
    publish_to "$queue" 'Hello World!'
    equal 'hello' 'Hello World!' "$(amqp-consume "${broker[@]}" -q "$queue" -A -c 1 cat)"

    # Work queue: while one worker is busy with its only task, the other one gets the rest.
    declare_queue task_queue -d
    publish -r "$queue" -p -b 1
    consume busy -q "$queue" -p 1 -c 1 -- sh -c "cat; $await_release"
    eventually has busy
    local task
    for task in 2 3 4; do
        publish -r "$queue" -p -b "$task"
    done
    equal 'tasks of the idle worker' 234 "$(amqp-consume "${broker[@]}" -q "$queue" -p 1 -c 3 cat)"
    touch "$work/release"
    wait "$consumer"
    equal 'task of the busy worker' 1 "$(<"$work/busy")"
    empty "$queue"

    # Publish/subscribe.
    subscribe logs1 amq.fanout any
    subscribe logs2 amq.fanout any
    publish -e amq.fanout -b "$prefix to everybody"
    eventually got logs1 'to everybody'
    eventually got logs2 'to everybody'

    # Routing and topics. RPC and confirms are beyond the tools.
    subscribe errors amq.direct "$prefix.error"
    subscribe kern amq.topic "$prefix.kern.*"
    local key
    for key in info error; do
        publish -e amq.direct -r "$prefix.$key" -b "$prefix $key"
    done
    for key in cron.critical kern.critical; do
        publish -e amq.topic -r "$prefix.$key" -b "$prefix $key"
    done
    eventually got errors error
    eventually got kern kern.critical
}

"case_$test_case"
