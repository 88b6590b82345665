package fips

import (
	"cmp"

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

// certificates returns those of a module by what GOFIPS140 links: another build of the
// same version is another module. From https://go.dev/doc/security/fips140 of 2026-04-28.
func certificates(frozen string) (cmvp, cavp string) {
	switch frozen {
	case "v1.0.0-c2097c7c":
		return "5247", "A6650"
	case "v1.26.0":
		return "", "A8028" // in review for CMVP
	}
	return "", ""
}

// checkCertificate is where CMVP says whether a certificate holds.
const checkCertificate = "https://csrc.nist.gov/projects/cryptographic-module-validation-program/certificate/"

// about fills in what both programs have in common.
func about(s Status, rebuild string) Report {
	m := Module{Name: "Go Cryptographic Module", Version: s.Module, Frozen: s.Frozen}
	m.CMVP, m.CAVP = certificates(s.Frozen)
	r := Report{Mode: s.Mode, Module: m, SelfTest: "not run", Peers: []Peer{}}
	if s.Mode == Off {
		r.Findings.Add("mode", report.Error, "set GODEBUG=fips140=on for the service, or build with: "+rebuild, "not in FIPS mode")
	} else {
		r.SelfTest = "passed"
		r.Findings.Add("mode", report.OK, "", "FIPS mode is %s; the module has tested its integrity at the start, and tests each algorithm before its first use", s.Mode.Word())
	}
	switch {
	case m.CMVP != "":
		r.Findings.Add("module", report.OK, "", "uses %s %s (%s) under CMVP certificate #%s, algorithms under CAVP certificate %s; whether it holds for this system: "+checkCertificate+"%[4]s",
			m.Name, m.Version, m.Frozen, m.CMVP, m.CAVP)
	case m.Frozen != "":
		r.Findings.Add("module", report.Error, "build with: "+rebuild, "uses %s %s, for which this version of weft knows no CMVP certificate", m.Name, m.Frozen)
	default:
		r.Findings.Add("module", report.Error, "build with: "+rebuild, "uses the %s of its Go release, which has no certificate", m.Name)
	}
	return r
}

// What the suites encrypt packets with. Unless FIPS mode is enforced, a node counts the
// nonces of AES-GCM by itself, which is faster: the cipher is the module's, but the module
// approves only nonces that it chooses.
const (
	aesCounted     = "AES-256-GCM, nonces counted by weft"
	aesInside      = "AES-256-GCM, nonces of the module; keys by HKDF-SHA-256 from the introduction"
	wireGuardSuite = "WireGuard: X25519, ChaCha20-Poly1305, BLAKE2s"
)

// Suite is what the suite of a tunnel, as the status names it, encrypts packets with in a
// mode, and whether that is the module alone.
func Suite(m Mode, name string) (with string, inside bool) {
	switch {
	case name != "aes":
		return wireGuardSuite, false
	case m == Only:
		return aesInside, true
	}
	return aesCounted, false
}

// Refused is why a node carries no packets when FIPS mode is enforced and it has no AES.
const Refused = "packets are not in FIPS mode here: WireGuard needs X25519, ChaCha20-Poly1305 and BLAKE2s, which GODEBUG=fips140=only forbids"

// RefusedHint is what to do about it.
const RefusedHint = "weft run without --suite wireguard uses AES, except on MIPS; with GODEBUG=fips140=on this device carries packets, not by the module alone"

const (
	rebuildNode   = "GOFIPS140=v1.0.0 scripts/build weft FILE"
	rebuildServer = "GOFIPS140=v1.0.0 scripts/build weft-server FILE"
)

// use is a Use in each mode.
type use struct {
	what, with string
	off        string // with what outside FIPS mode, "" for the same
	why        string // it is outside the module even in FIPS mode, "" if it is not
}

// Both programs.
var commonUses = [...]use{
	{"random numbers and keys", "SP 800-90A DRBG of the module, with the system's random numbers mixed in", "the system's generator", ""},
	{"identities", "ECDSA P-256, SHA-256", "", ""},
	{"links between nodes, relays and servers", tlsInside, tlsOutside, ""},
	{"handshake of a WebSocket", "SHA-1", "", "RFC 6455 wants it; it protects nothing: the link inside is TLS as above"},
}

// nodeUses are those of a node in a mode.
func nodeUses(m Mode) []use {
	packets := use{"packets between devices", aesCounted + "; or " + wireGuardSuite, "",
		"the cipher of AES-256-GCM is the module's, but weft counts the nonces, which the module does not approve; no certificate covers WireGuard's algorithms"}
	if m == Only {
		packets = use{packets.what, aesInside, "", ""}
	}
	return []use{
		{"introductions of devices to each other", tlsInside, tlsOutside, ""},
		packets,
		{"which path packets take (probes, lanes of relays)", "BLAKE2s as MAC", "",
			"the format is that of all nodes and relays; they carry no data of users, and a forged one could only mislead packets, which are encrypted"},
		{"signatures of releases", "Ed25519, SHA-256", "", ""},
		{"state on disk (identity key, caches)", "none", "", "files of mode 0600; encrypt the disk if they must be"},
	}
}

var serverUses = [...]use{
	{"console and API (HTTPS)", "TLS 1.2 and 1.3: AES-GCM or AES-CBC; ECDHE with P-256, P-384 or P-521, SecP256r1MLKEM768, X25519MLKEM768", "TLS 1.2 and 1.3",
		"browsers that offer X25519MLKEM768 get it: ML-KEM is in the module, X25519 beside it is not"},
	{"CAs, certificates, revocation list", "ECDSA P-256, SHA-256", "", ""},
	{"passwords", "PBKDF2-HMAC-SHA-256, 600,000 rounds", "argon2id", ""},
	{"codes beside the password", "HMAC-SHA-256", "HMAC-SHA-1", ""},
	{"signatures of passkeys and of OpenID providers", "Ed25519, ECDSA or RSA, with SHA-2", "", ""},
	{"secrets that are sealed in the database", "AES-256-GCM", "", ""},
	{"tokens and sessions", "128 bits or more of random numbers; their SHA-256 is kept", "", ""},
	{"backups", "AES-256-GCM; key from PBKDF2-HMAC-SHA-256, 600,000 rounds", "argon2id, ChaCha20-Poly1305", ""},
	{"signatures of webhooks", "HMAC-SHA-256", "", ""},
	{"audit", "SHA-256 chain, ECDSA P-256 signatures", "", ""},
	{"database and CA keys on disk", "none", "", "files of mode 0600; encrypt the disk if they must be"},
	{"relayed UDP (cookies, lanes)", "BLAKE2s as MAC", "", "the format is that of all nodes and relays; it keeps strangers from using the relay, and protects no data of users"},
	{"names of the ACME client's lock files", "BLAKE3", "", "no protection: short names of files (only with --domain)"},
}

const (
	tlsInside  = "TLS 1.3: SecP256r1MLKEM768, AES-GCM, ECDSA P-256"
	tlsOutside = "TLS 1.3: X25519MLKEM768 or SecP256r1MLKEM768, AES-GCM or ChaCha20-Poly1305, ECDSA P-256"
)

// use adds uses. Outside FIPS mode nothing counts as inside the module, which has not
// tested itself.
func (r *Report) use(list []use) {
	for _, u := range list {
		x := Use{What: u.what, Algorithms: u.with, Why: u.why}
		if r.Mode == Off && (u.why == "" || u.off != "") {
			x.Algorithms, x.Why = cmp.Or(u.off, u.with), "FIPS mode is off"
		}
		x.Inside = x.Why == ""
		r.Uses = append(r.Uses, x)
	}
}

// Node is the report of a node with these tunnels. refused is why it carries no packets, ""
// if it does.
func Node(s Status, peers []Peer, refused string) Report {
	r := about(s, rebuildNode)
	r.Peers = append(r.Peers, peers...)
	r.use(commonUses[:])
	r.use(nodeUses(s.Mode))
	switch {
	case refused != "":
		r.Findings.Add("packets", report.Error, RefusedHint, "%s", refused)
	case s.Mode == Only:
		r.Findings.Add("packets", report.OK, "", "packets between devices are encrypted by the module alone; devices that have no AES are refused")
	default:
		r.Findings.Add("packets", report.Warning, "carry what must be in the module inside another protocol, such as TLS or SSH of a program in FIPS mode",
			"packets between devices are not encrypted by the module alone")
	}
	r.Findings.Sort()
	return r
}

// Server is the report of a server. old is how many people have a password that was set
// outside FIPS mode.
func Server(s Status, old int) Report {
	r := about(s, rebuildServer)
	r.use(commonUses[:])
	r.use(serverUses[:])
	if old > 0 && s.Mode != Off {
		r.Findings.Add("passwords", report.Error, "weft-server login-link: the link chooses a new password; or in the console, as owner, a new link for each",
			"%d of the passwords were set outside FIPS mode (argon2id) and are refused", old)
	}
	r.Findings.Sort()
	return r
}

// Rounds is how many rounds of PBKDF2-HMAC-SHA-256 make a key of a password or a
// passphrase.
const Rounds = 600_000
