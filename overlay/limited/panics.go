package limited

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
)

// A panic in the code for one request, of a client or of a program on this machine,
// must end that request and not the process with everybody's tunnels. So it is
// recovered where a goroutine starts to serve a request. It is not recovered where a
// goroutine owns state that others use: there, ending the process is safer.

// Crash is a recovered panic, as an error for the caller that waits for the request.
type Crash struct {
	Value any
	Stack []byte // of the goroutine that panicked
}

func (c *Crash) Error() string { return fmt.Sprintf("crashed: %v", c.Value) }

// maxStack bounds the stack that one crash logs, in bytes.
const maxStack = 8 << 10

func newCrash(v any) *Crash {
	if c, ok := v.(*Crash); ok {
		return c
	}
	stack := debug.Stack()
	return &Crash{Value: v, Stack: stack[:min(len(stack), maxStack)]}
}

// Survive is deferred by code that serves a request: a panic ends the request, is
// logged with its stack, and is passed to failed as a *Crash, unless failed is nil.
func Survive(log *slog.Logger, request string, failed func(error)) {
	v := recover()
	if v == nil {
		return
	}
	c := newCrash(v)
	logCrash(log, request, c)
	if failed != nil {
		failed(c)
	}
}

func logCrash(log *slog.Logger, request string, c *Crash) {
	log.Error("a request crashed and was ended; please report this", "request", request, "panic", c.Value, "stack", string(c.Stack))
}

// Go runs f in a further goroutine of a request. The goroutine that serves the request
// calls wait once: it returns after f, and a panic of f is one of wait.
func Go(f func()) (wait func()) {
	done := make(chan *Crash, 1)
	go func() {
		var crash *Crash
		defer func() { done <- crash }()
		defer func() {
			if v := recover(); v != nil {
				crash = newCrash(v)
			}
		}()
		f()
	}()
	return func() {
		if c := <-done; c != nil {
			panic(c)
		}
	}
}

// Handler is h with its panics logged with their stack. As for any handler, they end
// the request's connection.
func Handler(log *slog.Logger, request string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch v := recover(); v {
			case nil:
			case http.ErrAbortHandler:
				panic(v)
			default:
				logCrash(log, request, newCrash(v))
				panic(http.ErrAbortHandler)
			}
		}()
		h.ServeHTTP(w, r)
	})
}
