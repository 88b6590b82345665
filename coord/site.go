package coord

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// siteHandler is the public site: the console, and a word for whoever watches
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
	mux.Handle("/", s.console)
	return mux
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
