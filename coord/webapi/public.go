package webapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"weft/coord/ops"
	"weft/coord/ratelimit"
)

// The limits of the API on the public site, for a token and for an address (for IPv6 a /64).
// A bucket of 600 that fills up in a minute lets 600 requests pass at once, and then 10 a
// second. Wrong tokens have no separate limit: 256 bits cannot be guessed, and one client
// with a wrong token would lock out other programs behind the same address.
var (
	perToken  = ratelimit.Limit{Burst: 600, Per: time.Minute}
	perAddr   = ratelimit.Limit{Burst: 1200, Per: time.Minute}
	maxLimits = 20_000 // tokens and addresses that are counted at a time: about 3 MB
)

// maxBearer bounds the header Authorization in bytes.
const maxBearer = 256

// Site is what the API needs from the public site.
type Site struct {
	Addr func(*http.Request) netip.Addr // the address of the client, also behind a trusted proxy
	Now  func() time.Time
}

// OnSite serves the API to clients with a token, which is in the header Authorization and
// nowhere else. Cookies are ignored, so no web page can use a person's sign-in, and no page
// of another site can read an answer.
func OnSite(api http.Handler, s *ops.Service, site Site) http.Handler {
	limits := ratelimit.New(maxLimits)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if r.ContentLength > maxBody {
			w.Header().Set("Connection", "close") // nobody reads the rest
			writeProblem(w, newProblem(http.StatusRequestEntityTooLarge, "").(*Problem))
			return
		}
		if r.Body != nil {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		}
		from, now := site.Addr(r), site.Now()
		// Behind a proxy that is not trusted to name its clients, all clients have a
		// loopback address: there only the limit for each token holds.
		stranger := from.IsValid() && !from.IsLoopback()
		source := "addr " + ops.SourceOf(from).String()
		if stranger {
			left, ok := limits.Take(source, perAddr, now)
			if !ok {
				s.RefusedToken(from, "too many requests")
				tooMany(w, left, "address", perAddr)
				return
			}
		}
		who, err := authenticate(r.Context(), s, r.Header, from)
		if errors.Is(err, ops.ErrUnauthorized) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			writeProblem(w, unauthorized(err))
			return
		}
		if err != nil {
			writeProblem(w, unavailable(r.Context(), err))
			return
		}
		left, ok := limits.Take("token "+who.Token, perToken, now)
		if !ok {
			s.RefusedToken(from, "too many requests")
			tooMany(w, left, "token", perToken)
			return
		}
		rateHeaders(w, left, "token", perToken)
		api.ServeHTTP(w, r.WithContext(WithActor(r.Context(), who)))
	})
}

// authenticate returns the actor of a request.
func authenticate(ctx context.Context, s *ops.Service, h http.Header, from netip.Addr) (ops.Actor, error) {
	values := h.Values("Authorization")
	if len(values) == 0 {
		return ops.Actor{}, fmt.Errorf("the request has no token: %w", ops.ErrUnauthorized)
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if len(values) > 1 || len(values[0]) > maxBearer || !strings.EqualFold(scheme, "bearer") || token == "" {
		s.RefusedToken(from, "no such token")
		return ops.Actor{}, fmt.Errorf("the header Authorization is not of the form Bearer TOKEN: %w", ops.ErrUnauthorized)
	}
	return s.Authenticate(ctx, strings.TrimSpace(token), from)
}

func unauthorized(err error) *Problem {
	return &Problem{Status: http.StatusUnauthorized, Code: codeUnauthorized, Detail: err.Error(),
		Hint: "make a token with: weft-server tokens create USER; programs send it in the header Authorization: Bearer TOKEN"}
}

func tooMany(w http.ResponseWriter, left ratelimit.State, what string, l ratelimit.Limit) {
	rateHeaders(w, left, what, l)
	wait := seconds(left.Wait)
	w.Header().Set("Retry-After", wait)
	writeProblem(w, &Problem{Status: http.StatusTooManyRequests, Code: codeTooOften, Detail: "too many requests from this " + what, Hint: "try again in " + wait + " s"})
}

// rateHeaders says how many requests are left (draft-ietf-httpapi-ratelimit-headers).
func rateHeaders(w http.ResponseWriter, left ratelimit.State, what string, l ratelimit.Limit) {
	w.Header().Set("RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=%s", what, int(l.Burst), seconds(l.Per)))
	w.Header().Set("RateLimit", fmt.Sprintf("%q;r=%d;t=%s", what, left.Left, seconds(left.Wait)))
}

// seconds rounds up.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}
