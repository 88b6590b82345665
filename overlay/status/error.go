package status

import (
	"context"
	"errors"
)

// Kind classifies errors by what the user can do about them. Each has one exit code,
// see ExitCode.
type Kind string

// The kinds.
const (
	KindFailed      Kind = "failed"         // 1: all other errors
	KindUsage       Kind = "usage"          // 2: the request is invalid
	KindNoDaemon    Kind = "no-daemon"      // 3: only from the client
	KindNotJoined   Kind = "not-joined"     // 4: run weft up TOKEN
	KindApproval    Kind = "needs-approval" // 4
	KindUnknown     Kind = "unknown-peer"   // 5: no such name or address
	KindUnavailable Kind = "unavailable"    // 5: the server is away, so it is unknown
	KindUnreachable Kind = "unreachable"    // 5: the peer is offline or does not answer
	KindRefused     Kind = "refused"        // 5: the peer answers, the port is closed
	KindDenied      Kind = "denied"         // 6: policy, here or there
	KindTimeout     Kind = "timeout"        // 7
)

// ExitCode is the exit code of a verb that fails with this kind.
func (k Kind) ExitCode() int {
	switch k {
	case KindUsage:
		return 2
	case KindNoDaemon:
		return 3
	case KindNotJoined, KindApproval:
		return 4
	case KindUnknown, KindUnavailable, KindUnreachable, KindRefused:
		return 5
	case KindDenied:
		return 6
	case KindTimeout:
		return 7
	default:
		return 1
	}
}

// Error is a failure that crosses the local API.
type Error struct {
	Kind    Kind   `json:"kind"`
	Message string `json:"message"` // what and why: one line, no final dot
	Hint    string `json:"hint"`    // the next command or step, may be empty
}

// Error implements error: the message and the hint on one line.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + "; " + e.Hint
}

// KindOf returns the kind of err: that of the *Error in its chain, KindTimeout for a
// context's deadline, otherwise KindFailed. The kind of nil is "".
func KindOf(err error) Kind {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, context.DeadlineExceeded):
		return KindTimeout
	default:
		return KindFailed
	}
}
