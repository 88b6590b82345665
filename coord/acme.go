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

// ACMEOptions configure a certificate that browsers trust, for the public site. Nodes do not need
// it, because they verify the server by its own CA.
type ACMEOptions struct {
	Domain    string // "" for no certificate
	Directory string // URL of the CA's directory; "" for that of Let's Encrypt
	CAFile    string // PEM with the CAs of the directory's own certificate, for a private CA
	Email     string // for the CA, may be ""
}

const alpnACME = "acme-tls/1" // RFC 8737

// acmeSite has a certificate from an ACME CA and renews it. The challenge is
// answered on the server's own TLS port (TLS-ALPN-01).
type acmeSite struct {
	domain  string
	private bool // browsers do not know the CA
	magic   *certmagic.Config
	cache   *certmagic.Cache
	self    *tls.Certificate // used until there is a certificate from the CA
}

// newACME starts to get a certificate and to renew it, until ctx ends. The caller also has to
// call close. listen is the address of the TLS port, and self the certificate to use until
// then.
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
		// certmagic checks whether something listens on this address already, which we do, and
		// then lets us answer the challenge.
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
		// Contact nobody but the CA.
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

// checkDomain refuses names for which a public CA issues no certificates.
func checkDomain(name string) error {
	if net.ParseIP(name) != nil || !strings.Contains(name, ".") || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" || len(name) > 253 {
		return fmt.Errorf("--domain %q: want a DNS name that leads to this server, such as weft.example.com", name)
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

// config returns the TLS configuration of the public site.
func (a *acmeSite) config() *tls.Config {
	return &tls.Config{GetCertificate: a.certificate, NextProtos: []string{"h2", "http/1.1", alpnACME}, MinVersion: tls.VersionTLS12}
}

// certificate returns the certificate for a handshake: the answer to the CA's challenge, the CA's
// certificate for the domain, or the self-signed one.
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

// current returns the newest certificate for the domain, nil if there is none yet.
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

// siteCertificate returns the certificate with which the public site answers at a URL of this
// server, and whether browsers trust it.
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

// domainURL returns the URL of a server with a domain that was started without --url.
func domainURL(domain string, listen net.Addr) string {
	a, ok := listen.(*net.TCPAddr)
	if !ok || a.Port == 443 {
		return "https://" + domain
	}
	return "https://" + net.JoinHostPort(domain, strconv.Itoa(a.Port))
}

// OwnCertificates returns the certificates of the public site in a data directory, in DER: the
// self-signed one, and those from an ACME CA.
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
