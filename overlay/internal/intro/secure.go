package intro

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"weft/overlay/cert"
	"weft/overlay/fips"
)

// alpn names the protocol inside TLS.
//
//	1  2026-11-22  first version
const alpn = "weft-intro/1"

// Exporter labels, one per purpose and direction.
const (
	labelPSK      = "EXPORTER-weft-psk/1"
	labelAES      = "EXPORTER-weft-aes/1"
	labelProbeC2S = "EXPORTER-weft-probe-c2s/1"
	labelProbeS2C = "EXPORTER-weft-probe-s2c/1"
)

// secure starts TLS on the session.
func (s *Session) secure() error {
	id := s.sw.cfg.Identity()
	if id == nil || len(id.Certificate) == 0 {
		return errors.New("introduction: no node certificate yet")
	}
	own := *id
	own.SignedCertificateTimestamps = nil
	config := &tls.Config{
		MinVersion:       tls.VersionTLS13,
		CurvePreferences: fips.Hybrids(),
		NextProtos:       []string{alpn},
		// Names have no meaning here: verify decides, on both sides.
		InsecureSkipVerify:          true,
		ClientAuth:                  tls.RequireAnyClientCert,
		VerifyConnection:            s.verify,
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
	}
	if s.Initiator {
		config.Certificates = []tls.Certificate{own}
		s.alter(config)
		s.tls = tls.Client(conn{s}, config)
		return nil
	}
	s.Own = s.sw.cfg.Hello()
	hello, err := json.Marshal(s.Own.message())
	if err != nil {
		return fmt.Errorf("marshal hello: %w", err)
	}
	own.SignedCertificateTimestamps = [][]byte{hello}
	config.Certificates = []tls.Certificate{own}
	s.alter(config)
	s.tls = tls.Server(conn{s}, config)
	return nil
}

func (s *Session) alter(config *tls.Config) {
	if s.sw.alter != nil {
		s.sw.alter(s, config)
	}
}

// verify checks that the other end is the node that it should be.
func (s *Session) verify(cs tls.ConnectionState) error {
	sw := s.sw
	switch {
	case cs.Version != tls.VersionTLS13 || !slices.Contains(fips.Hybrids(), cs.CurveID):
		return fmt.Errorf("introduction: %s with %v is not allowed", tls.VersionName(cs.Version), cs.CurveID)
	case cs.NegotiatedProtocol != alpn:
		return fmt.Errorf("introduction: the peer speaks %q, not %s", cs.NegotiatedProtocol, alpn)
	case cs.DidResume || len(cs.PeerCertificates) == 0:
		return errors.New("introduction: the peer presented no certificate")
	}
	node, err := sw.cfg.Verify(cs.PeerCertificates[0].Raw)
	switch {
	case err != nil:
		return fmt.Errorf("introduction: %w", err)
	case node.Network != sw.cfg.Network:
		return fmt.Errorf("introduction: the certificate is of network %v: %w", node.Network, cert.ErrUntrusted)
	case node.ID == sw.cfg.ID:
		return fmt.Errorf("introduction: our own certificate, reflected: %w", ErrIdentity)
	case node.ID != s.id:
		return fmt.Errorf("introduction: node %v answered instead of %v: %w", node.ID, s.id, ErrIdentity)
	}
	sw.mu.Lock()
	s.Peer = node
	sw.mu.Unlock()
	return nil
}

// takeKeys exports the pair's keys after the handshake.
func (s *Session) takeKeys() error {
	client, callee := s.sw.cfg.ID, s.id
	probeSend, probeRecv := labelProbeC2S, labelProbeS2C
	if !s.Initiator {
		client, callee = callee, client
		probeSend, probeRecv = probeRecv, probeSend
	}
	context := slices.Concat(s.sw.cfg.Network[:], client[:], callee[:])
	cs := s.tls.ConnectionState()
	s.KeyExchange = cs.CurveID.String()
	for _, k := range []struct {
		label string
		to    *[32]byte
	}{{labelPSK, &s.PSK}, {labelAES, &s.aes}, {probeSend, &s.ProbeSend}, {probeRecv, &s.ProbeRecv}, {labelKeys, &s.keyContext}} {
		b, err := cs.ExportKeyingMaterial(k.label, context, len(k.to))
		if err != nil {
			return fmt.Errorf("export keys: %w", err)
		}
		copy(k.to[:], b)
	}
	return nil
}

// calleeHello returns the hello in the callee's certificate message.
func (s *Session) calleeHello() (Hello, error) {
	scts := s.tls.ConnectionState().SignedCertificateTimestamps
	if len(scts) != 1 {
		return Hello{}, errors.New("introduction: the callee sent no hello")
	}
	m, err := parseMessage(scts[0])
	if err != nil {
		return Hello{}, err
	}
	return m.hello()
}

// certificateAlert reports whether err is an alert with which the peer refuses our
// certificate. crypto/tls does not export the type of alerts; the texts of these, and of
// no others, contain the word.
func certificateAlert(err error) bool {
	return remoteAlert(err) && strings.Contains(err.Error(), "certificate")
}

// remoteAlert reports whether err is a TLS alert that the peer sent.
func remoteAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}
