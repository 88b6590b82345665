package coord

import (
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"weft/coord/install"
	"weft/coord/webapi"
	"weft/overlay/api"
)

// siteHandler returns the handler of the public site: the console, the API, the installer, and
// /healthz for monitoring.
func (s *Server) siteHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		if !s.ready.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			w.Write([]byte("stopping\n"))
			return
		}
		w.Write([]byte("ok\n"))
	})
	// A device without a token gets the pins here that a token would contain. They are public.
	// Whether the device believes them depends on the certificate of this connection.
	mux.HandleFunc("GET "+api.PinsPath, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		json.NewEncoder(w).Encode(s.Pins())
	})
	handout := s.release.Handler(s.baseOf, s.sitePin, s.clientAddr, s.console.Fetched)
	mux.Handle("GET /install", handout)
	mux.Handle("GET /install/", handout)
	// The API does not check the host name (see named), because requests need a token, which a
	// web page in an attack by DNS rebinding does not have.
	mux.Handle("/api/", webapi.OnSite(s.api, s.Service, webapi.Site{Addr: s.clientAddr, Now: s.now}))
	mux.Handle("/", s.named(s.console))
	return mux
}

// named refuses requests to the console with a host name that is not this server's. Otherwise a
// web page could make its own name point to this server (DNS rebinding) and talk to the console,
// even on loopback, as if it were its own site.
//
// Three kinds of requests are accepted with any name: those to an IP address, which cannot be
// made to point elsewhere; those over TLS, for which the browser has accepted a certificate for
// the name; and those from a trusted reverse proxy, which decides which names it serves.
// /healthz, /install, /weft and the pins are not protected in this way: they answer the same to
// everybody, and nodes may reach the server by names that it does not know.
func (s *Server) named(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.isNamed(r) {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, "This server does not know the name by which your browser reached it, so it does not show its console.\n"+
			"Open it at "+s.ConsoleURL()+" or "+s.Network().URLs[0]+", or start the server with this name as one more --url.", http.StatusMisdirectedRequest)
	})
}

// isNamed reports whether named accepts a request.
func (s *Server) isNamed(r *http.Request) bool {
	host := hostname(r.Host)
	if host == "localhost" || strings.HasSuffix(host, ".localhost") || host != "" && host == hostname(s.domain) {
		return true
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	if r.TLS != nil && host != "" && host == hostname(r.TLS.ServerName) {
		return true
	}
	if direct, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && s.trusts(direct.Addr()) {
		return true
	}
	return slices.ContainsFunc(s.Network().URLs, func(raw string) bool {
		u, err := url.Parse(raw)
		return err == nil && host != "" && host == hostname(u.Host)
	})
}

// trustedSite reports whether the browser of a request trusts the site's certificate by itself:
// it is the one for --domain, or that of a trusted reverse proxy.
func (s *Server) trustedSite(r *http.Request) bool {
	if r.TLS == nil {
		direct, err := netip.ParseAddrPort(r.RemoteAddr)
		return err == nil && s.trusts(direct.Addr()) && r.Header.Get("X-Forwarded-Proto") == "https"
	}
	return s.acme != nil && hostname(r.Host) == hostname(s.domain) && s.acme.current() != nil
}

// hostname returns the host in a Host header, without the port, in lower case.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

// clientAddr returns the address of the client that sent r, also behind a trusted reverse proxy.
func (s *Server) clientAddr(r *http.Request) netip.Addr {
	if a, ok := s.remoteAddr(r).(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	ap, _ := netip.ParseAddrPort(r.RemoteAddr)
	return ap.Addr().Unmap()
}

// baseOf returns the server's URL with the host of a request, or the server's first URL if none
// has that host.
func (s *Server) baseOf(r *http.Request) string {
	urls := s.Network().URLs
	for _, raw := range urls {
		if u, err := url.Parse(raw); err == nil && u.Host == r.Host {
			return raw
		}
	}
	return urls[0]
}

// sitePin returns the pin of the site's certificate at a URL, "" if browsers trust the
// certificate. Behind a reverse proxy it returns "" too, because the proxy's certificate is not
// known here.
func (s *Server) sitePin(base string) string {
	site, trusted := s.siteCertificate(base)
	if trusted || len(s.trusted) > 0 {
		return ""
	}
	leaf, err := x509.ParseCertificate(site.Certificate[0])
	if err != nil {
		return ""
	}
	return install.Pin(leaf)
}

// offer returns the release that devices install, nil if there is none.
func (s *Server) offer() *install.Offer {
	d, err := s.release.Current()
	if err != nil {
		return nil
	}
	base := s.Network().URLs[0]
	return &install.Offer{Base: base, Pin: s.sitePin(base), Manifest: d.Manifest}
}

// remoteAddr returns the client's address if a request comes from a trusted reverse proxy: the
// last address in X-Forwarded-For that is not a trusted proxy itself. It returns nil for
// requests from others, whose headers prove nothing.
func (s *Server) remoteAddr(r *http.Request) net.Addr {
	direct, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !s.trusts(direct.Addr()) {
		return nil
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		a, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			return nil
		}
		if !s.trusts(a) {
			return net.TCPAddrFromAddrPort(netip.AddrPortFrom(a.Unmap(), 0))
		}
	}
	return nil
}

func (s *Server) trusts(a netip.Addr) bool {
	a = a.Unmap()
	return slices.ContainsFunc(s.trusted, func(p netip.Prefix) bool { return p.Contains(a) })
}
