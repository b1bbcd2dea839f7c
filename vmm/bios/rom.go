package bios

import "encoding/binary"

// The code lies in the last page below 1 MiB, behind the SMBIOS tables.
const (
	segment = 0xf000
	romBase = 0xff000
	romSize = 0x1000

	// Offsets in the segment. Each vector has a stub of its own.
	stubs    = romBase - segment<<4
	stubSize = 8
	outSize  = 2 // of the OUT that a stub starts with
	romTick  = stubs + 0x800
	romIRQ   = stubs + 0x840 // of the first PIC
	romIRQ2  = stubs + 0x850 // of the second
	romKey   = stubs + 0x860
	romHalt  = stubs + 0x870
	romWaits = stubs + 0x878 // a byte: a key was asked for that has not come
	romStart = stubs + 0x880
	romReset = 0xfff0 // where a processor starts
	romModel = 0xfffe
)

// Vectors that are not services.
const (
	vectorIRQ   = 0x08 // of the first PIC; 0 is the timer
	vectorKeys  = 0x16
	vectorBoot  = 0x18 // what is called when nothing boots; the next boots again
	vectorTick  = 0x1c // called at each tick
	vectorIRQ2  = 0x70 // of the second PIC
	modelPCAT   = 0xfc
	iret        = 0xcf
	vectorCount = 256
)

// Where the processor starts, CS:IP.
const (
	StartSegment = segment
	StartOffset  = romStart
)

// vectors is the interrupt vector table.
func vectors() []byte {
	t := make([]byte, 4*vectorCount)
	for v := range vectorCount {
		at := uint16(stubs + v*stubSize)
		switch {
		case v == vectorIRQ:
			at = romTick
		case v > vectorIRQ && v < vectorIRQ+8:
			at = romIRQ
		case v >= vectorIRQ2 && v < vectorIRQ2+8:
			at = romIRQ2
		}
		binary.LittleEndian.PutUint16(t[4*v:], at)
		binary.LittleEndian.PutUint16(t[4*v+2:], segment)
	}
	return t
}

// rom is the code. It starts the kernel at kernel:0.
func rom(kernel uint16) []byte {
	b := make([]byte, romSize)
	for v := range vectorCount {
		stub := []byte{iret}
		if services[byte(v)] != nil {
			stub = []byte{0xe6, Port, iret} // out Port, al
		}
		switch v {
		case vectorKeys:
			stub = jump([]byte{0xe6, Port}, stubs+v*stubSize, romKey)
		case vectorBoot, vectorBoot + 1:
			stub = jump([]byte{0xe6, Port}, stubs+v*stubSize, romHalt)
		}
		copy(b[v*stubSize:], stub)
	}
	for at, code := range map[int][]byte{
		romTick:  tick,
		romIRQ:   {0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, iret},             // push ax; mov al, 0x20; out 0x20, al; pop ax
		romIRQ2:  {0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, iret}, // push ax; mov al, 0x20; out 0xa0, al; out 0x20, al; pop ax
		romKey:   key(),
		romHalt:  {0xfa, 0xf4, 0xeb, 0xfc}, // cli; hlt; jmp to cli
		romStart: start(kernel),
		// mov al, 6; mov dx, 0xcf9; out dx, al; jmp here
		romReset: {0xb0, 6, 0xba, 0xf9, 0x0c, 0xee, 0xeb, 0xfe},
		romModel: {modelPCAT},
	} {
		copy(b[at-stubs:], code)
	}
	return b
}

// jump adds a jump to code that starts at at.
func jump(code []byte, at, to int) []byte {
	code = append(code, 0xe9) // jmp
	return binary.LittleEndian.AppendUint16(code, uint16(to-(at+len(code)+2)))
}

// key asks again at each interrupt, until there is a key.
func key() []byte {
	b := []byte{
		0x2e, 0x80, 0x3e, romWaits & 0xff, romWaits >> 8, 0, // cmp byte cs:[romWaits], 0
		0x74, 0x06, // je to iret
		0xfb, 0xf4, 0xfa, // sti; hlt; cli
	}
	return append(jump(b, romKey, stubs+vectorKeys*stubSize), iret)
}

// tick counts the timer's interrupts in the BIOS data area, from midnight on.
var tick = []byte{
	0x1e, 0x50, // push ds; push ax
	0x31, 0xc0, 0x8e, 0xd8, // xor ax, ax; mov ds, ax
	0x66, 0xff, 0x06, dataTicks & 0xff, dataTicks >> 8, // inc dword [dataTicks]
	0x66, 0x81, 0x3e, dataTicks & 0xff, dataTicks >> 8, ticksPerDay & 0xff, ticksPerDay >> 8 & 0xff, ticksPerDay >> 16, 0, // cmp dword [dataTicks], ticksPerDay
	0x72, 0x0e, // jb over what follows
	0x66, 0xc7, 0x06, dataTicks & 0xff, dataTicks >> 8, 0, 0, 0, 0, // mov dword [dataTicks], 0
	0xc6, 0x06, dataMidnight & 0xff, dataMidnight >> 8, 1, // mov byte [dataMidnight], 1
	0xcd, vectorTick, // int 0x1c
	0xb0, 0x20, 0xe6, 0x20, // mov al, 0x20; out 0x20, al
	0x58, 0x1f, iret, // pop ax; pop ds
}

// start sets the PICs and the timer as a BIOS does, and jumps to the kernel.
func start(kernel uint16) []byte {
	b := []byte{0xfa} // cli
	for _, o := range [][2]byte{
		{0x20, 0x11}, {0xa0, 0x11}, // edge triggered, cascaded (8259A data sheet, ICW1 to ICW4)
		{0x21, vectorIRQ}, {0xa1, vectorIRQ2},
		{0x21, 4}, {0xa1, 2}, {0x21, 1}, {0xa1, 1},
		{0x21, 0xfa}, {0xa1, 0xff}, // only the timer, and the second PIC, of which nothing
		{0x43, 0x34}, {0x40, 0}, {0x40, 0}, // 18.2 ticks a second (8254 data sheet, mode 2)
	} {
		b = append(b, 0xb0, o[1], 0xe6, o[0]) // mov al, value; out port, al
	}
	b = append(b, 0x31, 0xc0, 0xea, 0, 0) // xor ax, ax; jmp kernel:0
	return binary.LittleEndian.AppendUint16(b, kernel)
}
