package webapi

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"weft/coord/ops"
)

// Document is the path of the OpenAPI document.
const Document = "/api/openapi.json"

// description is what the document says of the API as a whole.
const description = `The API of a weft coordination server. It takes the token of a service as Authorization: Bearer TOKEN.

A POST that makes or changes something is done once for its Idempotency-Key; where an operation does not list that header, it has no effect. PATCH, PUT and DELETE can be repeated without it: they do the same thing twice. With If-Match they are done only if nobody else has changed the thing meanwhile.`

// maxBody bounds a request's body, and maxQuery its path and query, in bytes.
const (
	maxBody  = 1 << 20
	maxQuery = 8 << 10
)

// rows is the extension of an operation in the document that names its rows of
// ops.Operations.
const rows = "x-weft-operations"

// These settings of package huma hold for the whole process; nothing else here uses it.
func init() {
	huma.ValidateStrictCasing = true
	huma.NewError = newProblem
}

type api struct {
	huma huma.API
	ops  *ops.Service
	log  *slog.Logger
}

// New returns the handler of the API. The context of each request has to name its
// actor: see WithActor.
func New(s *ops.Service, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	format := huma.Format{Marshal: marshal, Unmarshal: ops.Decode}
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI:    "3.1.0",
			Info:       &huma.Info{Title: "weft-server", Version: "1", Description: description},
			Components: &huma.Components{Schemas: registry},
		},
		Formats:                      map[string]huma.Format{"application/json": format, "json": format},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
	}
	config.FieldsOptionalByDefault = true
	a := &api{huma: humago.New(mux, config), ops: s, log: log}
	a.devices()
	a.keys()
	a.requests()
	a.users()
	a.groups()
	a.signIn()
	a.providers()
	a.tokens()
	a.names()
	a.network()
	a.policy()
	a.audit()
	a.webhooks()
	document, err := json.Marshal(a.huma.OpenAPI())
	if err != nil {
		panic(err) // it depends on the code alone: seen by the first test
	}
	mux.HandleFunc("GET "+Document, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(document)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { writeProblem(w, noOperation()) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		p := check(r)
		if p == nil {
			r, p = withOnce(r)
		}
		if p != nil {
			writeProblem(w, p)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func marshal(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// check refuses requests without an actor, and requests that two programs may
// understand differently.
func check(r *http.Request) *Problem {
	bad := func(detail string) *Problem {
		return &Problem{Status: http.StatusBadRequest, Code: codeInvalid, Detail: detail, Hint: "see " + Document}
	}
	if _, ok := r.Context().Value(actorKey{}).(ops.Actor); !ok {
		return &Problem{Status: http.StatusUnauthorized, Code: codeUnauthorized, Detail: "the request names no user"}
	}
	if len(r.URL.Path)+len(r.URL.RawQuery) > maxQuery {
		return &Problem{Status: http.StatusRequestURITooLong, Code: codeInvalid, Detail: "the path and the query are too long"}
	}
	// A path with "." or ".." is refused, not redirected to the path without them.
	if p := r.URL.EscapedPath(); path.Clean(p) != p {
		return noOperation()
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return bad("the query is not in the form a=b&c=d")
	}
	for key, values := range query {
		if len(values) > 1 {
			return bad("the query has a parameter twice")
		}
		if !readable(key) || !readable(values[0]) {
			return bad("the query holds text that is not Unicode, or a NUL")
		}
	}
	if !readable(r.URL.Path) {
		return bad("the path holds text that is not Unicode, or a NUL")
	}
	return nil
}

func noOperation() *Problem {
	return &Problem{Status: http.StatusNotFound, Code: "no_such_operation", Detail: "this weft-server has no such operation", Hint: "see " + Document}
}

func readable(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

type actorKey struct{}

// WithActor names the actor of the requests with this context.
func WithActor(ctx context.Context, a ops.Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// operation is one entry of the API.
type operation struct {
	method, path string
	id, summary  string
	does         string // its rows of ops.Operations, separated by spaces
	status       int    // of success, 0 is 200
}

// onceForAll reports whether an operation is done once for an idempotency key. A test of a
// webhook may be repeated, and trimming the audit twice is the same as trimming it once.
func (o operation) onceForAll() bool {
	return o.method == http.MethodPost && o.writes() && o.does != "webhook.test" && o.does != "audit.trim"
}

// writes reports whether an operation changes something.
func (o operation) writes() bool {
	return slices.ContainsFunc(ops.Operations, func(m *ops.Operation) bool {
		return m.Writes && slices.Contains(strings.Fields(o.does), m.Name)
	})
}

// result is the answer of every operation. It is one type, because package huma
// compiles its code once for each pair of types; add gives the document the type of the
// body.
type result struct {
	ETag string `header:"ETag" hidden:"true"`
	Body any
}

// add adds an operation to the API. f runs it for an actor.
func add[I, O any](a *api, o operation, f func(ctx context.Context, who ops.Actor, in *I) (O, error)) {
	register(a, o, types{nil, reflect.TypeFor[O]()}, "", func(ctx context.Context, who ops.Actor, in *I) (any, error) { return f(ctx, who, in) })
}

// addAsked is add for an operation with query parameters: parameters names the fields
// of Asked that it takes.
func addAsked[O any](a *api, o operation, parameters string, f func(ctx context.Context, who ops.Actor, in *Asked) (O, error)) {
	register(a, o, types{nil, reflect.TypeFor[O]()}, parameters, func(ctx context.Context, who ops.Actor, in *Asked) (any, error) { return f(ctx, who, in) })
}

// sender is a pointer to an input with a body.
type sender[I any] interface {
	*I
	sent() json.RawMessage
}

// addSent is add for an operation with a body of type B. The inputs hold the body as it
// was sent, so that few types of input are enough.
func addSent[I, B, O any, P sender[I]](a *api, o operation, f func(ctx context.Context, who ops.Actor, in *I, body B) (O, error)) {
	is := types{reflect.TypeFor[B](), reflect.TypeFor[O]()}
	register(a, o, is, "", func(ctx context.Context, who ops.Actor, in *I) (any, error) {
		var body B
		sent := P(in).sent()
		if err := ops.Decode(sent, &body); err != nil {
			return nil, ops.Invalid("%v", err)
		}
		ctx = withBody(ctx, sent)
		out, err := f(ctx, who, in, body)
		return a.again(ctx, o, is, who, out, err)
	})
}

// Sent is a request with a body.
type Sent struct{ Body json.RawMessage }

// SentFor is a request with a body that may have the header If-Match.
type SentFor struct {
	Precondition
	Sent
}

// SentTo is a request with a body about one thing of a list.
type SentTo struct {
	Word
	Precondition
	Sent
}

func (in *Sent) sent() json.RawMessage { return in.Body }

// types are those of an operation's body, nil for none, and of its answer.
type types struct{ body, answer reflect.Type }

// register adds an operation. It knows the type of the answer by value, not as a type
// parameter: most of this package's code was copies of it.
func register[I any](a *api, o operation, is types, parameters string, f func(ctx context.Context, who ops.Actor, in *I) (any, error)) {
	d := a.describe(o, is.body, is.answer)
	if parameters != "" {
		d.Middlewares = huma.Middlewares{a.only(strings.Fields(parameters))}
	}
	huma.Register(a.huma, d, func(ctx context.Context, in *I) (*result, error) {
		who := ctx.Value(actorKey{}).(ops.Actor) // check saw it
		out, err := f(ctx, who, in)
		if is.body == nil {
			out, err = a.again(ctx, o, is, who, out, err)
		}
		if err != nil {
			return nil, a.problem(ctx, who, o, err)
		}
		return &result{etag(out), out}, nil
	})
	if parameters != "" {
		item := a.huma.OpenAPI().Paths[d.Path]
		item.Get.Parameters = slices.DeleteFunc(item.Get.Parameters, func(p *huma.Param) bool { return !slices.Contains(strings.Fields(parameters), p.Name) })
	}
}

// only refuses parameters of other operations.
func (a *api) only(parameters []string) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		u := ctx.URL()
		for name := range u.Query() {
			if !slices.Contains(parameters, name) {
				huma.WriteErr(a.huma, ctx, http.StatusUnprocessableEntity, "", &huma.ErrorDetail{Location: "query." + name, Message: "unknown query parameter"})
				return
			}
		}
		next(ctx)
	}
}

// etag returns the ETag of an answer: its revision, "" if it has none.
func etag(v any) string {
	switch v := v.(type) {
	case ops.Device:
		return quoted(v.Revision)
	case ops.PolicyText:
		return quoted(v.Revision)
	case ops.AuditSettings:
		return quoted(v.Revision)
	case ops.DNSInfo:
		return quoted(v.Revision)
	case Group:
		return quoted(v.Revision)
	case User:
		return quoted(v.Revision)
	case UserRow:
		return quoted(v.Revision)
	case Provider:
		return quoted(v.Revision)
	case SignIn:
		return quoted(v.Revision)
	case ops.Webhook:
		return quoted(v.Revision)
	}
	return ""
}

// describe returns the entry of an operation in the document.
func (a *api) describe(o operation, body, answer reflect.Type) huma.Operation {
	types := a.huma.OpenAPI().Components.Schemas
	good := &huma.Response{Content: map[string]*huma.MediaType{"application/json": {Schema: types.Schema(answer, true, "")}}}
	if etag(reflect.Zero(answer).Interface()) != "" {
		good.Headers = map[string]*huma.Param{"ETag": {Description: "the revision, for If-Match", Schema: &huma.Schema{Type: huma.TypeString}}}
	}
	status := cmp.Or(o.status, http.StatusOK)
	d := huma.Operation{
		Method: o.method, Path: "/api/v1" + o.path, OperationID: o.id, Summary: o.summary, DefaultStatus: status,
		Tags: []string{strings.Split(o.path, "/")[1]}, MaxBodyBytes: maxBody, Extensions: map[string]any{rows: strings.Fields(o.does)},
		Responses: map[string]*huma.Response{
			strconv.Itoa(status): good,
			"default": {
				Description: "A problem: what, why, what to do next",
				Content:     map[string]*huma.MediaType{problemType: {Schema: types.Schema(reflect.TypeFor[Problem](), true, "")}},
			},
		},
	}
	if o.onceForAll() {
		d.Parameters = append(d.Parameters, &huma.Param{Name: onceHeader, In: "header", Schema: &huma.Schema{Type: huma.TypeString},
			Description: "a word that the client invents for this request; a repeated request with the same key is done only once, within a day and the last 1,000 keys"})
	}
	if body != nil {
		d.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: types.Schema(body, true, "")}}}
	}
	return d
}

// Word names one thing of a list.
type Word struct {
	ID string `path:"id" doc:"name or id; for a device also its address"`
}
