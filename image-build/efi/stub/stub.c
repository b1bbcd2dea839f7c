/*
 * The first code of an Ashlar image that the firmware runs. The image is one PE
 * file that holds kernel, initramfs and command line as sections; this code
 * offers the initramfs to the kernel, loads the kernel from memory and starts
 * it with the command line.
 *
 * It follows the UEFI specification 2.10 (sections named below), the PE format,
 * and the kernel's Documentation/admin-guide/efi-stub.rst.
 *
 * It is linked at address 0, addresses everything relative to the instruction
 * pointer and keeps its state on the stack, so that it needs no relocation and
 * no writable section; stub.ld refuses anything else.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef u64 efi_status;
typedef void *efi_handle;

#define EFIAPI __attribute__((ms_abi))
#define ERROR(n) ((efi_status)1 << 63 | (n))
#define INVALID_PARAMETER ERROR(2)
#define UNSUPPORTED ERROR(3)
#define BUFFER_TOO_SMALL ERROR(5)
#define NOT_FOUND ERROR(14)

/* COMMAND_LINE_SIZE of the kernel on x86, the final zero included. */
#define CMDLINE_MAX 2048

struct guid {
	u32 a;
	u16 b, c;
	u8 d[8];
};

/* 12.4, Simple Text Output Protocol, up to OutputString. */
struct text_output {
	void *reset;
	efi_status (EFIAPI *output_string)(struct text_output *, const u16 *);
};

/* 4.2, the header of each of the tables. */
struct table_header {
	u64 signature;
	u32 revision, size, crc32, reserved;
};

/* 4.4, EFI Boot Services Table: what is used, with the rest counted. */
struct boot_services {
	struct table_header header;
	void *unused1[16]; /* RaiseTPL to UninstallProtocolInterface */
	efi_status (EFIAPI *handle_protocol)(efi_handle, const struct guid *, void **);
	void *unused2[5]; /* reserved, RegisterProtocolNotify to InstallConfigurationTable */
	efi_status (EFIAPI *load_image)(u8, efi_handle, void *, const void *, u64, efi_handle *);
	efi_status (EFIAPI *start_image)(efi_handle, u64 *, u16 **);
	void *unused3[4]; /* Exit, UnloadImage, ExitBootServices, GetNextMonotonicCount */
	efi_status (EFIAPI *stall)(u64);
	void *unused4[9]; /* SetWatchdogTimer to LocateProtocol */
	efi_status (EFIAPI *install_protocols)(efi_handle *, ...);
	efi_status (EFIAPI *uninstall_protocols)(efi_handle, ...);
};

/* 4.3, EFI System Table. */
struct system_table {
	struct table_header header;
	u16 *firmware_vendor;
	u32 firmware_revision;
	efi_handle con_in_handle;
	void *con_in;
	efi_handle con_out_handle;
	struct text_output *con_out;
	efi_handle stderr_handle;
	void *std_err;
	void *runtime_services;
	struct boot_services *boot_services;
};

/* 9.1, EFI Loaded Image Protocol. */
struct loaded_image {
	u32 revision;
	efi_handle parent;
	struct system_table *system_table;
	efi_handle device;
	void *file_path, *reserved;
	u32 load_options_size;
	void *load_options;
	u8 *image_base;
	u64 image_size;
};

/* 10.3.1, generic device path node. */
struct node {
	u8 type, subtype, length[2];
} __attribute__((packed));

/* 10.3.5.3, vendor-defined media. */
struct vendor_path {
	struct node node;
	struct guid guid;
	struct node end;
} __attribute__((packed));

/* 10.3.2.3, memory mapped. */
struct memory_path {
	struct node node;
	u32 memory_type;
	u64 start, last;
	struct node end;
} __attribute__((packed));

/* 13.2, EFI Load File 2 Protocol, and what this one serves. */
struct load_file {
	efi_status (EFIAPI *load)(struct load_file *, void *, u8, u64 *, void *);
	const u8 *data;
	u64 size;
};

/* A section of this file, in memory. */
struct section {
	u8 *data;
	u32 size;
};

static const struct guid LOADED_IMAGE =
	{ 0x5b1b31a1, 0x9562, 0x11d2, { 0x8e, 0x3f, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b } };
static const struct guid DEVICE_PATH =
	{ 0x09576e91, 0x6d3f, 0x11d2, { 0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b } };
static const struct guid LOAD_FILE2 =
	{ 0x4006c0c1, 0xfcb3, 0x403e, { 0x99, 0x6d, 0x4a, 0x6c, 0x87, 0x24, 0xe0, 0x6d } };
/* LINUX_EFI_INITRD_MEDIA_GUID */
static const struct guid INITRD_MEDIA =
	{ 0x5568e427, 0x68fc, 0x4f3d, { 0xac, 0x74, 0xca, 0x55, 0x52, 0x31, 0xcc, 0x68 } };
static const struct node END = { 0x7f, 0xff, { sizeof(struct node), 0 } };

static void print(struct system_table *st, const u16 *s)
{
	if (st->con_out)
		st->con_out->output_string(st->con_out, s);
}

/* Says what failed and the status in hexadecimal, and gives time to read it. */
static efi_status fail(struct system_table *st, const u16 *what, efi_status status)
{
	u16 hex[17];

	for (int i = 0; i < 16; i++) {
		u8 digit = status >> (60 - 4 * i) & 15;
		hex[i] = digit < 10 ? '0' + digit : 'a' + digit - 10;
	}
	hex[16] = 0;
	print(st, L"\r\nAshlar cannot start: ");
	print(st, what);
	print(st, L" (EFI status 0x");
	print(st, hex);
	print(st, L")\r\nWrite the image to the stick again. Going back to the firmware in 30 seconds.\r\n");
	st->boot_services->stall(30000000);
	return status;
}

/* EFI_LOAD_FILE2_PROTOCOL.LoadFile: the kernel asks for the size first. */
static efi_status EFIAPI load_initrd(struct load_file *f, void *path, u8 boot_policy, u64 *size, void *buffer)
{
	u8 *to = buffer;

	if (!f || !path || !size)
		return INVALID_PARAMETER;
	if (boot_policy)
		return UNSUPPORTED;
	if (!buffer || *size < f->size) {
		*size = f->size;
		return BUFFER_TOO_SMALL;
	}
	*size = f->size;
	const u8 *from = f->data;
	u64 n = f->size;
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	return 0;
}

static u16 get16(const u8 *p) { return p[0] | p[1] << 8; }
static u32 get32(const u8 *p) { return get16(p) | (u32)get16(p + 2) << 16; }

/* Finds a section of this file by its name of up to 8 bytes. */
static struct section find(const struct loaded_image *self, const char *name)
{
	u8 *base = self->image_base;
	u8 *pe = base + get32(base + 0x3c);
	u8 *header = pe + 24 + get16(pe + 20);
	struct section s = { 0, 0 };

	for (u16 n = get16(pe + 6); n; n--, header += 40) {
		int i = 0;
		while (i < 8 && name[i] && header[i] == (u8)name[i])
			i++;
		if (name[i] || (i < 8 && header[i]))
			continue;
		u32 size = get32(header + 8), address = get32(header + 12);
		if (address > self->image_size || size > self->image_size - address)
			continue;
		s.data = base + address;
		s.size = size;
	}
	return s;
}

__attribute__((section(".text.entry"), used))
efi_status EFIAPI efi_main(efi_handle handle, struct system_table *st)
{
	struct boot_services *bs = st->boot_services;
	struct loaded_image *self, *kernel;
	efi_handle kernel_handle = 0, initrd_handle = 0;
	u16 options[CMDLINE_MAX];
	efi_status status;

	status = bs->handle_protocol(handle, &LOADED_IMAGE, (void **)&self);
	if (status)
		return fail(st, L"the firmware does not say where it loaded the image", status);
	struct section linux_ = find(self, ".linux");
	struct section initrd = find(self, ".initrd");
	struct section cmdline = find(self, ".cmdline");
	if (!linux_.data || !initrd.data || !cmdline.data || cmdline.size >= CMDLINE_MAX)
		return fail(st, L"the image lacks kernel, initramfs or command line", NOT_FOUND);

	struct load_file file = { load_initrd, initrd.data, initrd.size };
	struct vendor_path initrd_path = {
		{ 4, 3, { sizeof(struct node) + sizeof(struct guid), 0 } }, INITRD_MEDIA, END,
	};
	status = bs->install_protocols(&initrd_handle, &DEVICE_PATH, &initrd_path, &LOAD_FILE2, &file, (void *)0);
	if (status)
		return fail(st, L"the firmware does not take the initramfs", status);

	struct memory_path kernel_path = {
		{ 1, 3, { sizeof kernel_path - sizeof(struct node), 0 } }, 2,
		(u64)linux_.data, (u64)linux_.data + linux_.size - 1, END,
	};
	status = bs->load_image(0, handle, &kernel_path, linux_.data, linux_.size, &kernel_handle);
	if (status) {
		fail(st, L"the firmware does not load the kernel", status);
		goto out;
	}
	status = bs->handle_protocol(kernel_handle, &LOADED_IMAGE, (void **)&kernel);
	if (status) {
		fail(st, L"the firmware does not take the command line", status);
		goto out;
	}
	for (u32 i = 0; i < cmdline.size; i++)
		options[i] = cmdline.data[i];
	options[cmdline.size] = 0;
	kernel->load_options = options;
	kernel->load_options_size = 2 * (cmdline.size + 1);
	status = bs->start_image(kernel_handle, 0, 0);
	/* The kernel comes back only if it could not start. */
	fail(st, L"the kernel gave up", status);
out:
	bs->uninstall_protocols(initrd_handle, &DEVICE_PATH, &initrd_path, &LOAD_FILE2, &file, (void *)0);
	return status;
}
