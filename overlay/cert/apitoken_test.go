package cert

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestAPIToken(t *testing.T) {
	tok := NewAPIToken(Pin{0: 7, 31: 9})
	s := tok.String()
	if got, err := ParseAPIToken(s); err != nil || got != tok || !strings.HasPrefix(s, "weftapi1") {
		t.Errorf("%v, %v", got, err)
	}
	if NewAPIToken(tok.Server).Secret == tok.Secret {
		t.Error("the same secret twice")
	}
	if text := fmt.Sprint(slog.Any("token", tok).Value.Resolve()); strings.Contains(text, s[8:]) {
		t.Errorf("in a log: %s", text)
	}
	for _, bad := range []string{"", "weftapi1", "weft1abc", s[:len(s)-1], s + "a", strings.Replace(s, "weftapi1", "weftapi2", 1), s[:20] + "_" + s[21:], strings.Repeat("x", 300), apiTokenPrefix + encode62([]byte{2, 3}), apiTokenPrefix + encode62([]byte{1, 3})} {
		if _, err := ParseAPIToken(bad); err == nil || len(bad) > 20 && strings.Contains(err.Error(), bad[10:20]) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
	// Each of the two kinds of tokens is known for what it is in the other's place.
	if _, err := ParseToken(s); err == nil || !strings.Contains(err.Error(), "API") {
		t.Errorf("joining with it: %v", err)
	}
	if _, err := ParseAPIToken((Token{URLs: []string{"https://a:1"}, Secret: NewSecret()}).String()); err == nil || !strings.Contains(err.Error(), "weft-server tokens create") {
		t.Errorf("a device's token: %v", err)
	}
}
