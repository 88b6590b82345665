package coord

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// ACMEOptions ask for a certificate that browsers trust, for the public site.
// Nodes do not need it: they know the server by its own CA.
type ACMEOptions struct {
	Domain    string // "" for none
	Directory string // of the CA, "" is Let's Encrypt's
	CAFile    string // PEM with the CAs of the directory's own certificate, for a private CA
	Email     string // for the CA, may be ""
}

const alpnACME = "acme-tls/1" // RFC 8737

// acmeSite has a certificate from an ACME CA and renews it. The challenge is
// answered on the server's own TLS port (TLS-ALPN-01).
type acmeSite struct {
	domain  string
	private bool // the CA is none that browsers know
	magic   *certmagic.Config
	cache   *certmagic.Cache
	self    *tls.Certificate // until there is one
}

// newACME begins to get a certificate, and to renew it, until ctx ends and
// close is called. listen is where the TLS port listens.
func newACME(ctx context.Context, o ACMEOptions, data string, listen net.Addr, self *tls.Certificate, log *slog.Logger) (*acmeSite, error) {
	a := &acmeSite{domain: strings.ToLower(o.Domain), private: o.CAFile != "", self: self}
	if err := checkDomain(a.domain); err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(listen.String())
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = ""
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	issuer := certmagic.ACMEIssuer{
		CA: o.Directory, Email: o.Email, Agreed: true, Logger: zap.NewNop(),
		DisableHTTPChallenge: true, DisableDistributedSolvers: true,
		// It looks whether somebody listens there, and it is us.
		ListenHost: host, AltTLSALPNPort: number,
	}
	if o.Directory == "" {
		issuer.CA = certmagic.LetsEncryptProductionCA
	}
	issuer.TestCA = issuer.CA
	if o.CAFile != "" {
		b, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("--acme-ca: %w", err)
		}
		issuer.TrustedRoots = x509.NewCertPool()
		if !issuer.TrustedRoots.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("--acme-ca %s: there is no certificate in it (PEM)", o.CAFile)
		}
	}
	a.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return a.magic, nil },
		Logger:           zap.NewNop(),
	})
	a.magic = certmagic.New(a.cache, certmagic.Config{
		Storage: &certmagic.FileStorage{Path: filepath.Join(data, "acme")},
		Logger:  zap.NewNop(),
		// Nobody but the CA is asked.
		OCSP:    certmagic.OCSPConfig{DisableStapling: true},
		OnEvent: func(_ context.Context, event string, d map[string]any) error { a.tell(log, event, d); return nil },
	})
	a.magic.Issuers = []certmagic.Issuer{certmagic.NewACMEIssuer(a.magic, issuer)}
	if err := a.magic.ManageAsync(ctx, []string{a.domain}); err != nil {
		a.close()
		return nil, fmt.Errorf("certificate for %s: %w", a.domain, err)
	}
	return a, nil
}

// checkDomain wants a name that a public CA could certify.
func checkDomain(name string) error {
	if net.ParseIP(name) != nil || !strings.Contains(name, ".") || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" || len(name) > 253 {
		return fmt.Errorf("--domain %q: want the name in DNS that leads to this server, such as weft.example.com", name)
	}
	return nil
}

func (a *acmeSite) tell(log *slog.Logger, event string, d map[string]any) {
	switch event {
	case "cert_obtained":
		log.Info("the console has a certificate", "domain", a.domain, "renewal", d["renewal"], "issuer", d["issuer"])
	case "cert_failed":
		log.Error("no certificate for the console yet, so it keeps the one it has; the CA must reach port 443 of "+a.domain+" and that must be --listen here", "err", d["error"])
	}
}

// config is the TLS configuration of the public site.
func (a *acmeSite) config() *tls.Config {
	return &tls.Config{GetCertificate: a.certificate, NextProtos: []string{"h2", "http/1.1", alpnACME}, MinVersion: tls.VersionTLS12}
}

// certificate answers the CA's challenge, and everybody else with the best
// certificate there is.
func (a *acmeSite) certificate(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if slices.Equal(h.SupportedProtos, []string{alpnACME}) {
		if !strings.EqualFold(h.ServerName, a.domain) {
			return nil, errors.New("no such challenge")
		}
		return a.magic.GetCertificate(h)
	}
	if strings.EqualFold(h.ServerName, a.domain) {
		if c := a.current(); c != nil {
			return c, nil
		}
	}
	return a.self, nil
}

// current is the newest certificate of the domain, nil while there is none.
func (a *acmeSite) current() *tls.Certificate {
	var best *tls.Certificate
	for _, c := range a.cache.AllMatchingCertificates(a.domain) {
		if c.Leaf != nil && (best == nil || c.Leaf.NotAfter.After(best.Leaf.NotAfter)) {
			best = &c.Certificate
		}
	}
	return best
}

func (a *acmeSite) close() { a.cache.Stop() }

// siteCertificate is what the public site answers with at a URL of this
// server.
func (s *Server) siteCertificate(base string) (c *tls.Certificate, trusted bool) {
	if s.acme != nil {
		if u, err := url.Parse(base); err == nil && strings.EqualFold(u.Hostname(), s.acme.domain) {
			if c := s.acme.current(); c != nil {
				return c, !s.acme.private
			}
		}
	}
	return s.site, false
}

// domainURL is the address of a server with a domain that was given no other.
func domainURL(domain string, listen net.Addr) string {
	a, ok := listen.(*net.TCPAddr)
	if !ok || a.Port == 443 {
		return "https://" + domain
	}
	return "https://" + net.JoinHostPort(domain, strconv.Itoa(a.Port))
}

// OwnCertificates are those in a data directory that a server answers
// with, in DER: of its own making, or a CA's.
func OwnCertificates(data string) (list [][]byte) {
	path := filepath.Join(data, "site.pem")
	if c, err := tls.LoadX509KeyPair(path, path); err == nil {
		list = append(list, c.Certificate[0])
	}
	files, _ := filepath.Glob(filepath.Join(data, "acme", "certificates", "*", "*", "*.crt"))
	for _, f := range files {
		if c, err := tls.LoadX509KeyPair(f, strings.TrimSuffix(f, ".crt")+".key"); err == nil {
			list = append(list, c.Certificate[0])
		}
	}
	return list
}
