package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// server gives every request the same answer and counts how much of it is read.
type server struct {
	res  http.Response
	body io.Reader
	read int
	sent http.Header // of the last request
}

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	res := s.res
	s.sent, res.Body = r.Header, io.NopCloser(s)
	return &res, nil
}

func (s *server) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	s.read += n
	return n, err
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// An answer that announces too many bytes is not read; one that announces nothing is read
// up to the limit only. The error distinguishes these, and answers that cannot be parsed,
// from one that broke off.
func TestAnswersOfNoUse(t *testing.T) {
	for name, c := range map[string]struct {
		length int64
		body   io.Reader
		read   int // at most
		broke  bool
	}{
		"too long, and says so": {cert.MaxCRL + 1, endless{}, 0, false},
		"endless":               {-1, endless{}, cert.MaxCRL + 1, false},
		"breaks off":            {-1, io.MultiReader(strings.NewReader("beginning"), broken{}), 9, true},
	} {
		s := &server{res: http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: c.length}, body: c.body}
		der, _, err := New(s, nil).CRL(context.Background())
		var came *AnswerError
		if der != nil || !errors.As(err, &came) || came.Broke != c.broke || s.read > c.read || len(came.Came) > c.read {
			t.Errorf("%s: %d bytes, %#v, read %d", name, len(der), err, s.read)
		}
	}
	s := &server{res: http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: -1}, body: strings.NewReader("{")}
	var came *AnswerError
	if _, err := New(s, nil).Config(context.Background(), api.Version{}); !errors.As(err, &came) || came.Broke {
		t.Errorf("not JSON: %#v", err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// The server does not send a list that the caller has.
func TestKnownList(t *testing.T) {
	tag := api.CRLTag(7)
	s := &server{res: http.Response{StatusCode: 304, Header: http.Header{"Etag": {tag}}}, body: endless{}}
	der, got, err := New(s, nil).CRL(context.Background(), "", tag)
	if der != nil || got != tag || err != nil || s.read != 0 || s.sent.Get("If-None-Match") != tag {
		t.Errorf("%d bytes, %q, %v; asked %v", len(der), got, err, s.sent)
	}
	s = &server{res: http.Response{StatusCode: 200, Header: http.Header{}, ContentLength: 4}, body: bytes.NewReader([]byte("list"))}
	if der, got, err := New(s, nil).CRL(context.Background()); string(der) != "list" || got != "" || err != nil || s.sent.Get("If-None-Match") != "" {
		t.Errorf("%q, %q, %v; asked %v", der, got, err, s.sent)
	}
}
