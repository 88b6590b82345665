package intro

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// MaxMessage bounds a message in bytes, without its length prefix.
const MaxMessage = 16 << 10

// MaxCandidates bounds the candidates taken from one message.
const MaxCandidates = 32

// The types of Message.
const (
	TypeHello      = "hello"
	TypeHelloAES   = "hello-aes" // a hello that demands SuiteAES; nodes before 2026-11-30 refuse it
	TypeAccept     = "accept"
	TypeDeny       = "deny"
	TypeCandidates = "candidates" // the sender may be reachable at these addresses
	TypeCallMe     = "call-me"    // the sender probes now; probe back
	TypePing       = "ping"
	TypePong       = "pong"
	TypeBye        = "bye"      // the sender has dropped its WireGuard peer
	TypeCRL        = "crl"      // a piece of the sender's revocation list
	TypeCRLNext    = "crl-next" // continue the list at Offset
)

// Message is one message of a session. Only the fields of its type are set.
type Message struct {
	Type string `json:"type"`

	// candidates, call-me
	Candidates []Candidate `json:"candidates,omitempty"`
	NAT4       string      `json:"nat4,omitempty"` // path.Mapping of the sender
	NAT6       string      `json:"nat6,omitempty"`

	// hello
	Boot uint64 `json:"boot,omitempty"`
	Key  []byte `json:"key,omitempty"`
	CRL  uint64 `json:"crl,omitempty"`
	// Suites are the suites that the sender can use besides WireGuard.
	Suites []Suite `json:"suites,omitempty"`
	Glare  uint64  `json:"glare,omitempty"` // id of the callee's last introduction to the sender that the sender has received

	// hello of a caller, accept
	Proof []byte `json:"proof,omitempty"` // that the WireGuard key is the sender's own; absent before 2026-11-29

	// accept
	Suite Suite `json:"suite,omitempty"` // that the callee has chosen; absent: SuiteWireGuard

	// deny
	Reason string `json:"reason,omitempty"`
	Text   string `json:"text,omitempty"`

	// ping, pong
	Nonce uint64 `json:"nonce,omitempty"`
	Heard int64  `json:"heard,omitempty"` // of a pong: 1 + milliseconds since data of the pinging node were last received; -1: never

	// crl, crl-next
	Number uint64 `json:"number,omitempty"`
	Total  int    `json:"total,omitempty"`
	Offset int    `json:"offset,omitempty"`
	Data   []byte `json:"data,omitempty"`
	Pause  bool   `json:"pause,omitempty"` // the sender waits for crl-next
}

// Candidate is an address at which a node may be reached directly.
type Candidate struct {
	Addr netip.AddrPort `json:"addr"`
	Kind string         `json:"kind,omitempty"` // path.Type
}

// appendMessage appends m with its length prefix.
func appendMessage(b []byte, m Message) ([]byte, error) {
	body, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("%w: %s message: %w", errUnsendable, m.Type, err)
	}
	if len(body) > MaxMessage {
		return nil, fmt.Errorf("%w: %s message of %d bytes, at most %d", errUnsendable, m.Type, len(body), MaxMessage)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...), nil
}

var (
	errMoreBytes  = errors.New("message is not complete")
	errUnsendable = errors.New("marshal message")
)

// cutMessage splits the first message off b. It returns errMoreBytes when b has only part
// of it.
func cutMessage(b []byte) (m Message, rest []byte, err error) {
	if len(b) < 2 {
		return Message{}, b, errMoreBytes
	}
	n := int(binary.BigEndian.Uint16(b))
	if n > MaxMessage {
		return Message{}, b, fmt.Errorf("parse message: %d bytes, at most %d", n, MaxMessage)
	}
	if len(b) < 2+n {
		return Message{}, b, errMoreBytes
	}
	m, err = parseMessage(b[2 : 2+n])
	return m, b[2+n:], err
}

func parseMessage(body []byte) (Message, error) {
	var m Message
	if err := json.Unmarshal(body, &m); err != nil {
		return Message{}, fmt.Errorf("parse message: %w", err)
	}
	if m.Type == "" {
		return Message{}, errors.New("parse message: no type")
	}
	if len(m.Candidates) > MaxCandidates {
		m.Candidates = m.Candidates[:MaxCandidates:MaxCandidates]
	}
	return m, nil
}

func (h Hello) message() Message {
	m := Message{Type: TypeHello, Boot: h.Boot, CRL: h.CRL}
	if h.Key != [32]byte{} {
		m.Key = h.Key[:]
	}
	if h.AES {
		m.Suites = []Suite{SuiteAES}
	}
	if h.Only {
		m.Type = TypeHelloAES
	}
	return m
}

func (m Message) hello() (Hello, error) {
	h := Hello{Boot: m.Boot, CRL: m.CRL, AES: slices.Contains(m.Suites, SuiteAES), Only: m.Type == TypeHelloAES}
	if m.Type != TypeHello && m.Type != TypeHelloAES {
		return Hello{}, fmt.Errorf("parse hello: the message is a %.20q", m.Type)
	}
	if len(m.Key) == 0 && h.AES {
		return h, nil
	}
	if len(m.Key) != 32 || [32]byte(m.Key) == ([32]byte{}) {
		return Hello{}, fmt.Errorf("parse hello: the WireGuard key has %d bytes or is zero", len(m.Key))
	}
	h.Key = [32]byte(m.Key)
	return h, nil
}
