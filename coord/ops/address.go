package ops

import (
	"net/netip"
	"net/url"
	"strings"
)

// SetConsoleURL tells the service where the console is, for sign-in links.
func (s *Service) SetConsoleURL(base string) { s.consoleURL.Store(&base) }

// consoleBase returns where the console is, as far as is known.
func (s *Service) consoleBase() string {
	if u := s.consoleURL.Load(); u != nil {
		return *u
	}
	if urls := s.index.info().URLs; len(urls) > 0 {
		return urls[0]
	}
	return ""
}

// PublicURL is the first address of the server by which other machines reach it, "" for none.
func (s *Service) PublicURL() string {
	for _, raw := range s.index.info().URLs {
		if u, err := url.Parse(raw); err == nil && !OnlyHere(u.Hostname()) {
			return strings.TrimSuffix(raw, "/")
		}
	}
	return ""
}

// OnlyHere reports whether a host is this machine and nothing else.
func OnlyHere(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && (ip.Unmap().IsLoopback() || ip.IsUnspecified())
}
