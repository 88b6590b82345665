package coord

import (
	"context"
	"net/http"

	"weft/coord/store"
)

func (s *Service) handleCRL(context.Context, *caller, *http.Request) (any, error) {
	return raw{contentType: "application/pkix-crl", body: s.index.info().CRL}, nil
}

// CRL returns the current signed revocation list.
func (s *Service) CRL() []byte { return s.index.info().CRL }

// renewCRL makes the transaction end with a new revocation list. Many
// deletions that share a transaction share the list.
func (s *Service) renewCRL(tx *store.Tx) {
	tx.Final("sign revocation list", func(tx *store.Tx) error {
		now := s.now()
		serials, err := tx.Revoked(s.network, now)
		if err != nil {
			return err
		}
		n, err := tx.Network()
		if err != nil {
			return err
		}
		// By the clock where that is ahead: a server restored from a backup
		// goes on above every number it gave out before.
		number := max(n.CRLNumber+1, uint64(max(0, now.Unix())))
		der, err := s.auth.Network.SignCRL(number, serials, now)
		if err != nil {
			return err
		}
		if err := tx.SetCRL(s.network, number, der); err != nil {
			return err
		}
		tx.After(func() {
			s.index.setCRL(number, der)
			s.relay.get().PushCRL(s.network, der, s.revoked)
			s.revoked = nil
			s.changed()
		})
		return nil
	})
}
