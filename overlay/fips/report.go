package fips

import (
	"fmt"

	"weft/overlay/report"
)

// Report is what an auditor asks about a program. It claims nothing of the program
// itself: only of which module it uses and where, and of which it does not.
type Report struct {
	Program string `json:"program"` // weft or weft-server
	Version string `json:"version"`
	System  string `json:"system"` // such as linux/amd64
	Go      string `json:"go"`
	// Running says that all this is of the daemon or server that runs, rather than of
	// the program that printed it.
	Running bool   `json:"running"`
	Mode    Mode   `json:"mode"`
	Module  Module `json:"module"`
	// SelfTest is "passed" in FIPS mode: a program whose module fails a test stops at
	// once. It is "not run" otherwise.
	SelfTest string `json:"self_test"`
	// Uses are the things that weft protects or checks, and with what.
	Uses []Use `json:"uses"`
	// Peers are the tunnels that a node has at the moment.
	Peers    []Peer          `json:"peers"`
	Findings report.Findings `json:"findings"`
}

// Module is a build of the Go Cryptographic Module.
type Module struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Frozen  string `json:"frozen"` // what GOFIPS140 linked, "" for the module of the Go release
	// CMVP and CAVP are the certificates of the module and of its algorithms that were
	// known when this program was made; "" for none. CMVP's list says whether they hold,
	// and for which systems.
	CMVP string `json:"cmvp"`
	CAVP string `json:"cavp"`
}

// Use is one thing that is protected or checked.
type Use struct {
	What       string `json:"what"`
	Algorithms string `json:"algorithms"`
	Inside     bool   `json:"inside"` // by the module alone
	Why        string `json:"why"`    // it is not inside, "" if it is
}

// Peer is a tunnel.
type Peer struct {
	Name        string `json:"name"`
	KeyExchange string `json:"key_exchange"` // of the introduction
	Suite       string `json:"suite"`        // of the packets
	Inside      bool   `json:"inside"`
}

// certified are the modules with certificates, by what GOFIPS140 links: other builds of
// the same version are other modules. From https://go.dev/doc/security/fips140 of
// 2026-04-28.
var certified = map[string]Module{
	"v1.0.0-c2097c7c": {CMVP: "5247", CAVP: "A6650"},
	"v1.26.0":         {CAVP: "A8028"}, // in review for CMVP
}

// CheckCertificate is where CMVP says whether a certificate holds.
const CheckCertificate = "https://csrc.nist.gov/projects/cryptographic-module-validation-program/certificate/"

func moduleOf(s Status) Module {
	m := certified[s.Frozen]
	m.Name, m.Version, m.Frozen = "Go Cryptographic Module", s.Module, s.Frozen
	return m
}

// about fills in what both programs have in common.
func about(s Status, rebuild string) Report {
	r := Report{Mode: s.Mode, Module: moduleOf(s), SelfTest: "not run", Peers: []Peer{}}
	add := r.Findings.Add
	if s.Mode == Off {
		add("mode", report.Error, "set GODEBUG=fips140=on for the service, or build with: "+rebuild, "not in FIPS mode")
	} else {
		r.SelfTest = "passed"
		add("mode", report.OK, "", "FIPS mode is %s; the module has tested its integrity at the start, and tests each algorithm before its first use", s.Mode.Word())
	}
	switch m := r.Module; {
	case m.CMVP != "":
		add("module", report.OK, "", "uses %s %s (%s) under CMVP certificate #%s, algorithms under CAVP certificate %s; whether it holds for this system: %s%s",
			m.Name, m.Version, m.Frozen, m.CMVP, m.CAVP, CheckCertificate, m.CMVP)
	case m.Frozen != "":
		add("module", report.Error, "build with: "+rebuild, "uses %s %s, for which this version of weft knows no CMVP certificate", m.Name, m.Frozen)
	default:
		add("module", report.Error, "build with: "+rebuild, "uses the %s of its Go release, which has no certificate", m.Name)
	}
	return r
}

// done completes a report. Outside FIPS mode the module has not tested itself.
func (r Report) done() Report {
	for i, u := range r.Uses {
		if u.Inside && r.Mode == Off {
			r.Uses[i].Inside, r.Uses[i].Why = false, "FIPS mode is off"
		}
	}
	r.Findings.Sort()
	return r
}

func (r *Report) use(u Use) { r.Uses = append(r.Uses, u) }

// WireGuardSuite is what WireGuard encrypts with.
const WireGuardSuite = "WireGuard: X25519, ChaCha20-Poly1305, BLAKE2s"

// Refused is why a node carries no packets when FIPS mode is enforced.
const Refused = "packets are not in FIPS mode here: WireGuard needs X25519, ChaCha20-Poly1305 and BLAKE2s, which GODEBUG=fips140=only forbids"

// RefusedHint is what to do about it.
const RefusedHint = "see: weft doctor --fips; with GODEBUG=fips140=on this device carries packets by WireGuard, outside the module"

const (
	rebuildNode   = "GOFIPS140=v1.0.0 scripts/build weft FILE"
	rebuildServer = "GOFIPS140=v1.0.0 scripts/build weft-server FILE"
)

// Node is the report of a node with these tunnels.
func Node(s Status, peers []Peer) Report {
	r := about(s, rebuildNode)
	r.Peers = append(r.Peers, peers...)
	r.common(s.Mode)
	packets := Use{What: "packets between devices", Algorithms: WireGuardSuite, Why: "no certificate covers these algorithms"}
	r.use(Use{What: "introductions of devices to each other", Algorithms: tls13(s.Mode), Inside: s.Mode != Off, Why: x25519(s.Mode)})
	if s.Mode == Only {
		packets.Why += "; FIPS mode is enforced, so that this device carries none"
		r.Findings.Add("packets", report.Error, "GODEBUG=fips140=on carries packets, outside the module", "%s", Refused)
	} else {
		r.Findings.Add("packets", report.Warning, "carry what must be in the module inside another protocol, such as TLS or SSH of a program in FIPS mode",
			"packets between devices are encrypted outside the module, by WireGuard")
	}
	r.use(packets)
	r.use(Use{What: "which path packets take (probes, lanes of relays)", Algorithms: "BLAKE2s as MAC",
		Why: "the format is that of all nodes and relays; they carry no data of users, and a forged one could only mislead packets, which are encrypted"})
	r.use(Use{What: "signatures of releases", Algorithms: "Ed25519, SHA-256", Inside: true})
	r.use(Use{What: "state on disk (identity key, caches)", Algorithms: "none", Why: "files of mode 0600; encrypt the disk if they must be"})
	return r.done()
}

// Server is the report of a server. old is how many people have a password that was set
// outside FIPS mode.
func Server(s Status, old int) Report {
	r := about(s, rebuildServer)
	r.common(s.Mode)
	site := Use{What: "console and API (HTTPS)", Algorithms: "TLS 1.2 and 1.3: AES-GCM or AES-CBC; ECDHE with P-256, P-384 or P-521, SecP256r1MLKEM768, X25519MLKEM768",
		Why: "browsers that offer X25519MLKEM768 get it: ML-KEM is in the module, X25519 beside it is not"}
	passwords := Use{What: "passwords", Algorithms: fmt.Sprintf("PBKDF2-HMAC-SHA-256, %d rounds", Rounds), Inside: true}
	backups := Use{What: "backups", Algorithms: fmt.Sprintf("AES-256-GCM; key from PBKDF2-HMAC-SHA-256, %d rounds", Rounds), Inside: true}
	if s.Mode == Off {
		site.Algorithms, site.Why = "TLS 1.2 and 1.3", "without FIPS mode crypto/tls takes ChaCha20-Poly1305 and X25519, too"
		passwords = Use{What: passwords.What, Algorithms: "argon2id", Why: "FIPS mode is off"}
		backups = Use{What: backups.What, Algorithms: "argon2id, ChaCha20-Poly1305", Why: "FIPS mode is off"}
	}
	r.use(site)
	r.use(Use{What: "CAs, certificates, revocation list", Algorithms: "ECDSA P-256, SHA-256", Inside: true})
	r.use(passwords)
	r.use(Use{What: "tokens and sessions", Algorithms: "128 bits or more of the module's random generator; SHA-256 is kept", Inside: true})
	r.use(backups)
	r.use(Use{What: "audit", Algorithms: "SHA-256 chain, ECDSA P-256 signatures", Inside: true})
	r.use(Use{What: "database and CA keys on disk", Algorithms: "none", Why: "files of mode 0600; encrypt the disk if they must be"})
	r.use(Use{What: "relayed UDP (cookies, lanes)", Algorithms: "BLAKE2s as MAC", Why: "the format is that of all nodes and relays; it keeps strangers from using the relay, and protects no data of users"})
	r.use(Use{What: "names of the ACME client's lock files", Algorithms: "BLAKE3", Why: "no protection: short names of files (only with --domain)"})
	if old > 0 && s.Mode != Off {
		r.Findings.Add("passwords", report.Error, "weft-server login-link: the link chooses a new password; or in the console, as owner, a new link for each",
			"%d of the passwords were set outside FIPS mode (argon2id) and are refused", old)
	}
	return r.done()
}

// common are the uses that both programs have.
func (r *Report) common(m Mode) {
	inside := m != Off
	random := Use{What: "random numbers and keys", Algorithms: "SP 800-90A DRBG of the module, with the system's random numbers mixed in", Inside: inside}
	if !inside {
		random.Algorithms, random.Why = "the system's generator", "FIPS mode is off"
	}
	r.use(random)
	r.use(Use{What: "identities", Algorithms: "ECDSA P-256, SHA-256", Inside: true})
	r.use(Use{What: "links between nodes, relays and servers", Algorithms: tls13(m), Inside: inside, Why: x25519(m)})
	r.use(Use{What: "handshake of a WebSocket", Algorithms: "SHA-1", Why: "RFC 6455 wants it; it protects nothing: the link inside is TLS as above"})
}

func tls13(m Mode) string {
	if m == Off {
		return "TLS 1.3: X25519MLKEM768 or SecP256r1MLKEM768, AES-GCM or ChaCha20-Poly1305, ECDSA P-256"
	}
	return "TLS 1.3: SecP256r1MLKEM768, AES-GCM, ECDSA P-256"
}

func x25519(m Mode) string {
	if m == Off {
		return "FIPS mode is off, so X25519 and ChaCha20-Poly1305 may be chosen"
	}
	return ""
}

// Rounds is how many rounds of PBKDF2-HMAC-SHA-256 make a key of a password or a
// passphrase.
const Rounds = 600_000
