package webapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"weft/coord/ops"
	"weft/coord/policy"
	"weft/coord/store"
	wire "weft/overlay/api"
)

const problemType = "application/problem+json"

// Problem is the body of every answer that is not a success (RFC 9457). Detail says
// what went wrong and why, Hint what to do next; both are for people.
type Problem struct {
	Title  string `json:"title" doc:"what the status means"`
	Status int    `json:"status" doc:"HTTP status"`
	Code   string `json:"code" doc:"for programs, which should compare this and not the texts: not_found, taken, invalid, forbidden, too_often, changed, done_before, unavailable, unauthorized, no_such_operation, internal"`
	Detail string `json:"detail" doc:"what, and why, for people"`
	Hint   string `json:"hint,omitempty" doc:"what to do next, for people"`
	// Errors lists all mistakes in a text, such as a policy; Detail has the first.
	Errors []policy.Remark `json:"errors,omitempty" doc:"the mistakes in a text that was sent, by line and column"`
}

// The codes for the errors of coord/ops. codeUnavailable is for store.ErrDiskFull and for a
// server that is stopping.
const (
	codeNotFound    = "not_found"
	codeTaken       = "taken"
	codeInvalid     = "invalid"
	codeForbidden   = "forbidden"
	codeTooOften    = "too_often"
	codeChanged     = "changed"
	codeUnavailable = "unavailable"
	codeInternal    = "internal"

	codeUnauthorized = "unauthorized"
	codeDone         = "done_before"
)

// Error is one line for people.
func (p *Problem) Error() string {
	if p.Hint != "" {
		return p.Detail + "; " + p.Hint
	}
	return p.Detail
}

// Unwrap returns the error of coord/ops that has the code of the problem, nil if there
// is none.
func (p *Problem) Unwrap() error {
	for _, k := range kinds {
		if k.code == p.Code {
			return k.err
		}
	}
	return nil
}

// GetStatus and ContentType tell package huma how to send it.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is that of a problem.
func (p *Problem) ContentType(string) string { return problemType }

// kinds are the errors that a client can act on.
var kinds = []struct {
	err    error
	status int
	code   string
}{
	{ops.ErrNotFound, http.StatusNotFound, codeNotFound},
	{ops.ErrTaken, http.StatusConflict, codeTaken},
	{ops.ErrInvalid, http.StatusUnprocessableEntity, codeInvalid},
	{ops.ErrForbidden, http.StatusForbidden, codeForbidden},
	{ops.ErrTooOften, http.StatusTooManyRequests, codeTooOften},
	{ops.ErrChanged, http.StatusPreconditionFailed, codeChanged},
	{ops.ErrDone, http.StatusConflict, codeDone},
	{ops.ErrSuspended, http.StatusForbidden, codeForbidden}, // clients see ErrForbidden
	{ops.ErrUnauthorized, http.StatusUnauthorized, codeUnauthorized},
}

// problem turns an error of an operation into a Problem. The text of an internal error
// is for the log only; root on this machine gets it in the answer instead.
func (a *api) problem(ctx context.Context, who ops.Actor, o operation, err error) *Problem {
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			if k.err == ops.ErrForbidden {
				row, _, _ := strings.Cut(o.does, " ")
				a.ops.RefusedRead(who, row)
			}
			p := &Problem{Status: k.status, Code: k.code, Detail: err.Error(), Hint: hint(who, k.err, err)}
			if e, ok := errors.AsType[*policy.Error](err); ok {
				p.Errors = e.Problems
			}
			return titled(p)
		}
	}
	var said *wire.Error // from code that the node API uses too
	if errors.As(err, &said) {
		return titled(&Problem{Status: said.Status, Code: codeInvalid, Detail: said.Message, Hint: said.Hint})
	}
	p := unavailable(ctx, err)
	switch {
	case p.Code != codeInternal:
	case who.Via == ops.ViaCLI:
		p.Detail = err.Error()
	default:
		a.log.Error("request failed", "operation", o.id, "err", err)
	}
	return p
}

// shows is the command that lists all things of a kind.
var shows = map[ops.Kind]string{
	ops.KindDevice:   "weft-server devices list",
	ops.KindKey:      "weft-server keys list",
	ops.KindUser:     "weft-server users list",
	ops.KindGroup:    "weft-server groups list",
	ops.KindToken:    "weft-server tokens list",
	ops.KindRequest:  "weft-server devices waiting",
	ops.KindRelay:    "weft-server relays list",
	ops.KindWebhook:  "weft-server webhooks list",
	ops.KindPolicy:   "weft-server policy history",
	ops.KindRecord:   "weft-server dns records list",
	ops.KindRoute:    "weft-server dns routes list",
	ops.KindAlias:    "weft-server dns aliases list",
	ops.KindProvider: "weft-server oidc list",
	ops.KindWho:      "weft-server users list, and weft-server devices list",
}

// hint returns what to do about an error of kinds, "" if its text says that already.
func hint(who ops.Actor, refusal, err error) string {
	switch list := shows[ops.KindOf(err)]; {
	case refusal == ops.ErrForbidden && who.UserID != "":
		return fmt.Sprintf("see what %s may do: weft-server users list; an admin changes it: weft-server users edit %[1]s", who.User)
	case refusal == ops.ErrNotFound && list != "":
		return "see: " + list
	}
	return ""
}

// unavailable returns the Problem for an error that the client cannot act on.
func unavailable(ctx context.Context, err error) *Problem {
	switch {
	case errors.Is(err, store.ErrDiskFull): // the store has logged it
		return titled(&Problem{Status: http.StatusServiceUnavailable, Code: codeUnavailable, Detail: store.ErrDiskFull.Error() + ", nothing was changed",
			Hint: "make room on the file system of --data, then repeat; the server need not be restarted"})
	case errors.Is(err, store.ErrClosed), ctx.Err() != nil:
		return titled(&Problem{Status: http.StatusServiceUnavailable, Code: codeUnavailable, Detail: "the server is stopping", Hint: "try again"})
	}
	return titled(&Problem{Status: http.StatusInternalServerError, Code: codeInternal, Detail: "the server could not do this; its log says why"})
}

func titled(p *Problem) *Problem {
	p.Title = http.StatusText(p.Status)
	return p
}

// newProblem turns what package huma found wrong with a request into a Problem. It
// never repeats values, which may be secrets.
func newProblem(status int, msg string, errs ...error) huma.StatusError {
	p := &Problem{Status: status, Code: codeInvalid, Detail: msg}
	switch {
	case status == http.StatusRequestEntityTooLarge:
		p.Detail = fmt.Sprintf("the request body is longer than %d bytes", maxBody)
	case status >= 500 && msg == "cannot read request body":
		p.Status, p.Detail = http.StatusBadRequest, "the request body broke off"
	case status >= 500:
		p.Code, p.Detail = codeInternal, "the server could not do this; its log says why"
	}
	var said []string
	for _, e := range errs {
		var d huma.ErrorDetailer
		if errors.As(e, &d) && p.Code == codeInvalid && p.Status == status {
			said = append(said, strings.TrimPrefix(d.ErrorDetail().Location+": ", ": ")+d.ErrorDetail().Message)
		}
	}
	if len(said) > 0 {
		p.Detail, p.Hint = "the request is not valid: "+strings.Join(said[:min(len(said), 5)], "; "), "see "+Document
	}
	return titled(p)
}

func writeProblem(w http.ResponseWriter, p *Problem) {
	b, err := json.Marshal(titled(p))
	if err != nil {
		b = []byte("{}") // it consists of texts
	}
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	w.Write(b)
}
