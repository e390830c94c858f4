// Runs every case against the broker at HOST PORT and reports one line per case.
package main

import (
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"time"
)

const (
	caseLimit  = 20 * time.Second
	totalLimit = 50 * time.Second
)

var cases = []struct {
	name string
	body func(*scope)
}{
	{"publish_confirms", publishConfirms},
	{"consume_acks", consumeAcks},
	{"prefetch", prefetch},
	{"get", get},
	{"reject_requeue", rejectRequeue},
	{"returns", returns},
	{"exclusive_auto_delete", exclusiveAutoDelete},
	{"tables", tables},
	{"exchanges", exchanges},
	{"large_message", largeMessage},
	{"errors", errorReplies},
	{"transactions", transactions},
	{"reconnect", reconnect},
	{"tutorials", tutorials},
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: run HOST PORT")
		os.Exit(2)
	}
	address := net.JoinHostPort(os.Args[1], os.Args[2])

	end := time.Now().Add(totalLimit)
	passed, failed := 0, 0
	for _, c := range cases {
		limit := time.Until(end)
		if limit > caseLimit {
			limit = caseLimit
		}
		if reason := runCase(c.name, c.body, address, limit); reason == "" {
			passed++
			fmt.Println("ok", c.name)
		} else {
			failed++
			fmt.Printf("FAIL %s: %s\n", c.name, strings.Join(strings.Fields(reason), " "))
		}
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}

// runCase returns why the case failed, or nothing if it passed.
func runCase(name string, body func(*scope), address string, limit time.Duration) string {
	result := make(chan string, 1)
	go func() {
		s := newScope(address, name)
		reason := guard(func() { body(s) })
		if cleanup := guard(s.close); reason == "" {
			reason = cleanup
		}
		result <- reason
	}()
	select {
	case reason := <-result:
		return reason
	case <-time.After(limit):
		return "not done within its time limit"
	}
}

// guard turns a failed check, or any other panic, into its description.
func guard(f func()) (reason string) {
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(os.Stderr, "%v\n%s\n", r, debug.Stack())
			reason = fmt.Sprint(r)
		}
	}()
	f()
	return ""
}
