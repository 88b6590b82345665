package console_test

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/coord/console"
)

// behindProxy is a console whose clients come from wherever they say.
func behindProxy(c *console.Config) {
	c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
}

// guess tries a password from an address.
func (b *browser) guess(from, name, password string) answer {
	b.t.Helper()
	req := b.request("POST", "/sign-in", form("name", name, "password", password))
	req.Header.Set("X-Forwarded-For", from)
	return b.do(req)
}

// Nobody who guesses keeps the owner out: neither one address any browser, nor a
// thousand addresses one in which the owner has signed in before.
func TestGuessingLocksNobodyOut(t *testing.T) {
	s := newSite(t, behindProxy)
	owner := s.browser().enter()
	owner.post("/sign-out").want(t, 303)
	// One address, for as long as it likes.
	tried := 0
	for range 60 {
		if a := s.browser().guess("198.51.100.1", "admin", "wrong password"); a.StatusCode == 422 {
			tried++
		}
		s.advance(time.Second)
	}
	if tried > 6 || tried < 3 {
		t.Errorf("%d attempts in a minute from one address", tried)
	}
	s.browser().guess("203.0.113.7", "admin", password).want(t, 303)
	// And an IPv6 network.
	for i := range 20 {
		s.browser().guess(fmt.Sprintf("2001:db8:1:2::%x", i+1), "admin", "wrong password")
	}
	s.browser().guess("203.0.113.8", "admin", password).want(t, 303)
	// A thousand: who is not known has to wait, who is does not.
	tried = 0
	for i := range 1000 {
		if a := s.browser().guess(fmt.Sprintf("10.1.%d.%d", i/250, i%250), "Admin", "wrong password"); a.StatusCode == 422 {
			tried++
		}
		s.advance(50 * time.Millisecond)
	}
	if tried > 10 {
		t.Errorf("%d attempts in a minute from a thousand addresses", tried)
	}
	s.browser().guess("203.0.113.9", "admin", password).want(t, 429, "Too many attempts")
	owner.guess("203.0.113.9", "admin", password).want(t, 303)
	// What it is known by is of one user, and has its own limit.
	owner.post("/sign-out").want(t, 303)
	tried = 0
	for range 20 {
		if owner.guess("203.0.113.9", "admin", "wrong password").StatusCode == 422 {
			tried++
		}
	}
	if tried != 5 {
		t.Errorf("%d attempts at once in a browser that is known", tried)
	}
}

// A browser that somebody had who knew another password is a stranger.
func TestKnownBrowserIsForgotten(t *testing.T) {
	s := newSite(t, behindProxy)
	thief := s.browser().enter()
	s.browser().enter() // a link: the owner thinks that the password got about
	for i := range 20 {
		s.browser().guess(fmt.Sprintf("10.1.2.%d", i), "admin", "wrong password")
	}
	thief.guess("203.0.113.9", "admin", password).want(t, 429)
}

// However many wait for their password to be checked, few do, and those that are known
// are let past.
func TestHashingIsBounded(t *testing.T) {
	s := newSite(t, behindProxy)
	owner := s.browser().enter()
	release := console.HoldHashing(s.console)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	for i := range 200 {
		wg.Go(func() {
			req, err := http.NewRequestWithContext(ctx, "POST", s.server.URL+"/sign-in", strings.NewReader(form("name", fmt.Sprint("user", i), "password", "wrong password").Encode()))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("X-Forwarded-For", fmt.Sprintf("10.2.0.%d", i))
			res, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				return // given up below
			}
			res.Body.Close()
			mu.Lock()
			defer mu.Unlock()
			statuses[res.StatusCode]++
		})
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		mu.Lock()
		busy := statuses[503]
		mu.Unlock()
		if busy >= 200-console.MaxWaiting {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v", statuses)
		}
		time.Sleep(5 * time.Millisecond)
	}
	done := make(chan int)
	go func() { done <- owner.guess("203.0.113.9", "admin", password).StatusCode }()
	cancel()
	release()
	if status := <-done; status != 303 {
		t.Errorf("the owner, who is known: %d", status)
	}
	wg.Wait()
}

// What wants a recent sign-in is not refused for good: it leads to signing in and back.
func TestSignInAgain(t *testing.T) {
	s := newSite(t)
	b := s.browser().enter()
	before := b.cookie().Value
	for next, want := range map[string]string{
		"/account": "/account", "/devices?q=a": "/devices?q=a",
		"//evil.example/": "/devices", "https://evil.example": "/devices", "/\\evil.example": "/devices",
	} {
		page := b.get("/sign-in/again?next="+url.QueryEscape(next)).want(t, 200, "Sign in again", `value="admin"`, "readonly", `name="again"`)
		if strings.Contains(page.body, "evil") {
			t.Errorf("next %q is on the page", next)
		}
		b.post("/sign-in", "name", "admin", "password", "wrong password", "again", "1", "next", next).want(t, 422, "Sign in again", "do not match")
		if to := b.post("/sign-in", "name", "admin", "password", password, "again", "1", "next", next).want(t, 303).Header.Get("Location"); to != want {
			t.Errorf("next %q leads to %q", next, to)
		}
		s.advance(time.Minute)
	}
	if b.cookie().Value == before || len(s.net.SessionsOf("admin")) != 1 {
		t.Error("signing in again keeps the session")
	}
	b.get("/account").want(t, 200, "signed in", "with the password")
}
