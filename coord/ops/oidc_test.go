package ops

import (
	"errors"
	"testing"
)

// Removing a provider leaves a record of each session that ends with it.
func TestRemovedProviderEndsSessions(t *testing.T) {
	s := openSite(t)
	issuer, client := "https://id.example", "weft"
	for _, id := range []string{"work", "home"} {
		if _, err := Do(t.Context(), s.Service, Root(), SetProvider{ID: id, New: true, Issuer: &issuer, ClientID: &client}); err != nil {
			t.Fatal(err)
		}
	}
	for subject, at := range map[string]string{"ann": "work", "ben": "work", "cleo": "home"} {
		who := Foreigner{Provider: at, Issuer: issuer, Subject: subject, Name: subject, Admitted: true}
		if _, err := Do(t.Context(), s.Service, Actor{Via: ViaConsole}, SignInWithProvider{Who: who, Session: NewSession{Hash: HashToken(subject), Agent: subject}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Do(t.Context(), s.Service, Root(), RemoveProvider{ID: "work"}); err != nil {
		t.Fatal(err)
	}
	lines, _ := s.audited("session.end", nil)
	ended := map[string]bool{}
	for _, l := range lines {
		ended[l.Name] = true
	}
	if len(lines) != 2 || !ended["ann"] || !ended["ben"] {
		t.Errorf("%+v", lines)
	}
	if _, _, err := s.Session(t.Context(), HashToken("cleo")); err != nil {
		t.Errorf("the session of another provider: %v", err)
	}
	if _, _, err := s.Session(t.Context(), HashToken("ann")); !errors.Is(err, ErrNotFound) {
		t.Errorf("a session of the provider: %v", err)
	}
}
