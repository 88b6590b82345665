package localapi

import (
	"context"
	"net/http"
	"time"

	"weft/overlay/status"
)

// Resolver is what the daemon's resolver offers beside answers:
//
//	POST /v1/dns/trace   DNSRequest -> DNSAnswer with Steps
//	GET  /v1/dns/status             -> what Status returns
//	POST /v1/dns/flush   {}         -> DNSFlushed
type Resolver struct {
	Trace  func(ctx context.Context, name, qtype string) (DNSAnswer, error)
	Status func() any // JSON of package dns
	Flush  func() int
}

// DNSStep is one decision on the way to an answer.
type DNSStep struct {
	Stage string `json:"stage"`
	Text  string `json:"text"`
}

// DNSFlushed says how many answers were forgotten.
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

// DNSTrace is DNS with the decisions that led to the answer.
func (c *Client) DNSTrace(ctx context.Context, name, qtype string) (DNSAnswer, error) {
	var a DNSAnswer
	return a, c.call(ctx, http.MethodPost, "/v1/dns/trace", nil, DNSRequest{Name: name, Type: qtype}, &a)
}

// DNSStatus decodes what the resolver is doing into v, a *dns.Status.
func (c *Client) DNSStatus(ctx context.Context, v any) error {
	return c.call(ctx, http.MethodGet, "/v1/dns/status", nil, nil, v)
}

// DNSFlush has the resolver forget what it learnt from others.
func (c *Client) DNSFlush(ctx context.Context) (DNSFlushed, error) {
	var f DNSFlushed
	return f, c.call(ctx, http.MethodPost, "/v1/dns/flush", nil, struct{}{}, &f)
}
