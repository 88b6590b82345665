package localapi

import (
	"context"
	"net/http"
	"time"

	"weft/overlay/status"
)

// Resolver is the part of the daemon's resolver beyond answers:
//
//	POST /v1/dns/trace   DNSRequest -> DNSAnswer with Steps
//	GET  /v1/dns/status             -> the result of Status
//	POST /v1/dns/flush   {}         -> DNSFlushed
type Resolver struct {
	Trace  func(ctx context.Context, name, qtype string) (DNSAnswer, error)
	Status func() any // JSON of package dns
	Flush  func() int
}

// DNSStep is one decision about an answer.
type DNSStep struct {
	Stage string `json:"stage"`
	Text  string `json:"text"`
}

// DNSFlushed says how many answers were dropped.
type DNSFlushed struct {
	Answers int `json:"answers"`
}

func (r *Resolver) handle(do routes, s *Server) {
	do["POST /v1/dns/trace"] = func(w http.ResponseWriter, req *http.Request) {
		var q DNSRequest
		if !read(w, req, &q) {
			return
		}
		name, err := status.CleanName(q.Name)
		if err != nil {
			s.failed(w, err)
			return
		}
		ctx, cancel := context.WithTimeout(req.Context(), 10*time.Second)
		defer cancel()
		a, err := r.Trace(ctx, name, q.Type)
		if err != nil {
			s.failed(w, err)
			return
		}
		reply(w, a)
	}
	do["GET /v1/dns/status"] = func(w http.ResponseWriter, _ *http.Request) { reply(w, r.Status()) }
	do["POST /v1/dns/flush"] = func(w http.ResponseWriter, _ *http.Request) {
		reply(w, DNSFlushed{Answers: r.Flush()})
	}
}

// DNSTrace is DNS with the decisions about the answer.
func (c *Client) DNSTrace(ctx context.Context, name, qtype string) (DNSAnswer, error) {
	var a DNSAnswer
	return a, c.call(ctx, http.MethodPost, "/v1/dns/trace", nil, DNSRequest{Name: name, Type: qtype}, &a)
}

// DNSStatus decodes the resolver's status into v, a *dns.Status.
func (c *Client) DNSStatus(ctx context.Context, v any) error {
	return c.call(ctx, http.MethodGet, "/v1/dns/status", nil, nil, v)
}

// DNSFlush makes the resolver drop what it learnt from other resolvers.
func (c *Client) DNSFlush(ctx context.Context) (DNSFlushed, error) {
	var f DNSFlushed
	return f, c.call(ctx, http.MethodPost, "/v1/dns/flush", nil, struct{}{}, &f)
}
