package remote

import (
	"crypto/x509"
	"testing"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

func TestBundledRoots(t *testing.T) {
	n := 0
	for root := range bundle.Roots() {
		if _, err := x509.ParseCertificate(root.Certificate); err != nil {
			t.Errorf("root certificate %d: %v", n, err)
		}
		n++
	}
	if n < 50 || bundledRoots().Equal(x509.NewCertPool()) {
		t.Errorf("%d root certificates", n)
	}
}
