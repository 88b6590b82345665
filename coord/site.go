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

// siteHandler is the public site: the console, the API, and a word for whoever watches
// over the process.
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
	// A device without a token asks here what a token would tell it. All of it is public:
	// what it believes depends on the certificate that it got.
	mux.HandleFunc("GET "+api.PinsPath, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		json.NewEncoder(w).Encode(s.Pins())
	})
	handout := s.release.Handler(s.baseOf, s.sitePin, s.clientAddr, s.console.Fetched)
	mux.Handle("GET /install", handout)
	mux.Handle("GET /install/", handout)
	// Programs come by whatever name they know: a web page that a name was made to point
	// here for has no token.
	mux.Handle("/api/", webapi.OnSite(s.api, s.Service, webapi.Site{Addr: s.clientAddr, Now: s.now}))
	mux.Handle("/", s.named(s.console))
	return mux
}

// named keeps requests from the console that were made to a name that is not this
// server's: a web page whose name its owner lets point here (DNS rebinding) would
// else speak with the console, on loopback too, as if it were its own.
//
// An IP address is no name that could be made to point elsewhere. With TLS the
// browser has believed the certificate for the name that it asked for. A reverse
// proxy decides which names it takes. /healthz, /install, /weft and the pins say the same to
// everybody, whatever the name, and are not asked for one: nodes come by names
// that the server never heard of.
func (s *Server) named(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.isNamed(r) {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, "This server does not know that it is called what your browser calls it, so its console is not shown.\n"+
			"Open it at "+s.ConsoleURL()+" or "+s.Network().URLs[0]+", or start the server with this name as one more --url.", http.StatusMisdirectedRequest)
	})
}

// isNamed reports whether a request asks for this server.
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

// trustedSite reports whether the browser of a request trusts the certificate that it
// got, without being told to: the one for --domain, or that of a reverse proxy, which
// has one for whatever it serves.
func (s *Server) trustedSite(r *http.Request) bool {
	if r.TLS == nil {
		direct, err := netip.ParseAddrPort(r.RemoteAddr)
		return err == nil && s.trusts(direct.Addr()) && r.Header.Get("X-Forwarded-Proto") == "https"
	}
	return s.acme != nil && hostname(r.Host) == hostname(s.domain) && s.acme.current() != nil
}

// hostname is a Host header's without its port, folded.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

// clientAddr is whose request r is, behind a trusted reverse proxy too.
func (s *Server) clientAddr(r *http.Request) netip.Addr {
	if a, ok := s.remoteAddr(r).(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	ap, _ := netip.ParseAddrPort(r.RemoteAddr)
	return ap.Addr().Unmap()
}

// baseOf is this server's address as a request named it, if it is one that
// devices may use, else the first of those.
func (s *Server) baseOf(r *http.Request) string {
	urls := s.Network().URLs
	for _, raw := range urls {
		if u, err := url.Parse(raw); err == nil && u.Host == r.Host {
			return raw
		}
	}
	return urls[0]
}

// sitePin pins the key of a site certificate that browsers do not trust. What a
// reverse proxy answers with is not known here, and had better be trusted.
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

// offer is what devices install, nil while there is no release.
func (s *Server) offer() *install.Offer {
	d, err := s.release.Current()
	if err != nil {
		return nil
	}
	base := s.Network().URLs[0]
	return &install.Offer{Base: base, Pin: s.sitePin(base), Manifest: d.Manifest}
}

// remoteAddr is the client's address behind a trusted reverse proxy: the last
// address of X-Forwarded-For that is not a trusted proxy itself. Nobody else
// is believed.
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
