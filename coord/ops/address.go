package ops

import (
	"net/netip"
	"net/url"
	"strings"
)

// SetConsoleURL sets the address of the console, which begins sign-in links.
func (s *Service) SetConsoleURL(base string) { s.consoleURL.Store(&base) }

// consoleBase returns the address of the console, "" if none is known.
func (s *Service) consoleBase() string {
	if u := s.consoleURL.Load(); u != nil {
		return *u
	}
	if urls := s.index.info().URLs; len(urls) > 0 {
		return urls[0]
	}
	return ""
}

// PublicURL returns the first address of the server at which other machines can reach it, ""
// if there is none.
func (s *Service) PublicURL() string {
	for _, raw := range s.index.info().URLs {
		if u, err := url.Parse(raw); err == nil && !OnlyHere(u.Hostname()) {
			return strings.TrimSuffix(raw, "/")
		}
	}
	return ""
}

// OnlyHere reports whether a host name or address leads to this machine only, such as
// localhost.
func OnlyHere(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && (ip.Unmap().IsLoopback() || ip.IsUnspecified())
}
