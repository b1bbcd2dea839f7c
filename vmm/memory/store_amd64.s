#include "textflag.h"

// func storeUint16(p *uint16, v uint16)
TEXT ·storeUint16(SB), NOSPLIT, $0-10
	MOVQ	p+0(FP), BX
	MOVW	v+8(FP), AX
	XCHGW	AX, 0(BX)
	RET
