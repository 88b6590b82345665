package limited

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
)

// A mistake in the code that serves one request of a stranger, or of a program on
// this machine, costs that request and not the process with everybody's tunnels.
// So it is caught at the rim, where a goroutine takes a request on. It is not
// caught where a goroutine owns state that others go on with: there it is safer
// to end.

// Crash is a panic that was caught. It is an error for who waits for the request.
type Crash struct {
	Value any
	Stack []byte // of the goroutine in which it happened
}

func (c *Crash) Error() string { return fmt.Sprintf("crashed: %v", c.Value) }

// maxStack bounds what one crash writes to the log, in bytes.
const maxStack = 8 << 10

func newCrash(v any) *Crash {
	if c, ok := v.(*Crash); ok {
		return c
	}
	stack := debug.Stack()
	return &Crash{Value: v, Stack: stack[:min(len(stack), maxStack)]}
}

// Survive is deferred by who serves a request: a panic ends the request, is
// logged with its stack, and given to failed as a *Crash, unless that is nil.
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

// Go runs f in a goroutine of a request. Whoever serves the request calls wait,
// once: it returns when f has, and a panic of f is one of wait.
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

// Handler is h whose panics are logged with their stack. They end the request's
// connection, as those of any handler do.
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
