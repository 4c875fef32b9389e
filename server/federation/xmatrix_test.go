package federation

import (
	"strings"
	"testing"

	"hearth/state/matrix"
)

func TestParseClaim(t *testing.T) {
	good := claim{"peer.test:8448", "here.test", "ed25519:k1", "AB/+cd="}
	toNobody := good
	toNobody.destination = ""
	for _, tt := range []struct {
		header string
		want   claim // the zero claim: refused
	}{
		{`X-Matrix origin="peer.test:8448",destination="here.test",key="ed25519:k1",sig="AB/+cd="`, good},
		{`X-Matrix origin=peer.test:8448,destination=here.test,key=ed25519:k1,sig=AB/+cd=`, good},
		{`x-MATRIX   Origin="peer.test:8448" , DESTINATION="here.test"	,	Key="ed25519:k1",Sig="AB/+cd="`, good},
		{`X-Matrix sig="AB/+cd=",key="ed25519:k1",destination=here.test,origin=peer.test:8448`, good},
		{`X-Matrix origin="pe\er\.test:8448",destination="here.test",key="ed25519:k1",sig="AB/\+cd="`, good},
		{`X-Matrix origin="peer.test:8448",destination="here.test",key="ed25519:k1",signature="AB/+cd=",new="a\"b, c=\\",x=`, good},
		{`X-Matrix origin="peer.test:8448",,destination="here.test", ,key="ed25519:k1",sig="AB/+cd=",`, good},
		{`X-Matrix origin="peer.test:8448",key="ed25519:k1",sig="AB/+cd="`, toNobody},
		{`X-Matrix origin = "peer.test:8448",key= "ed25519:k1",sig ="AB/+cd="`, toNobody},

		{`X-Matrix`, claim{}},
		{`X-Matrix `, claim{}},
		{`X-Matrix origin`, claim{}},
		{`X-Matrix origin="peer.test",key="ed25519:k1"`, claim{}},
		{`X-Matrix origin="peer.test",sig="x"`, claim{}},
		{`X-Matrix key="ed25519:k1",sig="x"`, claim{}},
		{`X-Matrix origin="peer test",key="ed25519:k1",sig="x"`, claim{}},
		{`X-Matrix origin="peer.test",destination="",key="ed25519:k1",sig="x"`, claim{}},
		{`X-Matrix origin="peer.test",origin="other.test",key="ed25519:k1",sig="x"`, claim{}},
		{`X-Matrix origin="peer.test",key="ed25519:k1",sig="x`, claim{}},
		{`X-Matrix origin="peer.test",key="ed25519:k1",sig="x\`, claim{}},
		{`X-Matrix origin="peer.test" key="ed25519:k1",sig="x"`, claim{}},
		{`X-Matrix origin="peer.test"x,key="ed25519:k1",sig="x"`, claim{}},
		{`X-Matrix ="peer.test",key="ed25519:k1",sig="x"`, claim{}},
	} {
		got, found, err := parseClaim(tt.header)
		if got != tt.want || !found || (err == nil) != (tt.want != claim{}) {
			t.Errorf("%s: %+v, %v, %v", tt.header, got, found, err)
		}
	}
	for _, header := range []string{"", "Bearer abc", "X-Matrixorigin=a", "X-MatrixX a=b"} {
		if _, found, err := parseClaim(header); found || err != nil {
			t.Errorf("%q is taken for a claim: %v", header, err)
		}
	}
}

func FuzzParseClaim(f *testing.F) {
	f.Add(`X-Matrix origin="peer.test:8448",destination="here.test",key="ed25519:k1",sig="AB/+cd="`)
	f.Add(`x-matrix origin=peer.test , key=ed25519:k1,sig="a\"b",,`)
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	f.Fuzz(func(t *testing.T, header string) {
		c, found, err := parseClaim(header)
		if !found || err != nil {
			if c != (claim{}) {
				t.Errorf("%q: %+v with %v", header, c, err)
			}
			return
		}
		if _, err := matrix.ParseServerName(string(c.origin)); err != nil {
			t.Errorf("%q: %v", header, err)
		}
		again := `X-Matrix origin="` + string(c.origin) + `",key="` + quote.Replace(c.key) + `",sig="` + quote.Replace(c.signature) + `"`
		if c.destination != "" {
			again += `,destination="` + string(c.destination) + `"`
		}
		if same, _, err := parseClaim(again); same != c || err != nil {
			t.Errorf("%q: %+v, written again %+v, %v", header, c, same, err)
		}
	})
}
