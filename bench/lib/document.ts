/** What a machine of eight B200 prints for `nvidia-smi -q -x`, about. */
const B200_BYTES = 350 * 1024;

/**
 * A document of eight GPUs grown to the size B200 ones have. The simulator knows no B200: to each of its H100 processes are added, as
 * a busy board has, and more of the clock tables that make up most of such a document, until the size is reached.
 */
export function grownToB200(document: string): string {
  const clocks = /\t*<supported_mem_clock>[\s\S]*?<\/supported_mem_clock>\n/.exec(document)?.[0] ?? "";
  const process = (pid: number) =>
    `\t\t\t<process_info>\n\t\t\t\t<gpu_instance_id>N/A</gpu_instance_id>\n\t\t\t\t<compute_instance_id>N/A</compute_instance_id>\n` +
    `\t\t\t\t<pid>${pid}</pid>\n\t\t\t\t<type>C</type>\n\t\t\t\t<process_name>/usr/bin/python3 -m vllm.entrypoints.openai.api_server &lt;rank ${pid}&gt;</process_name>\n` +
    `\t\t\t\t<used_memory>21504 MiB</used_memory>\n\t\t\t</process_info>\n`;
  const parts = document.split("</gpu>");
  const missing = B200_BYTES - document.length;
  const each = Math.max(0, Math.floor(missing / (parts.length - 1)));
  let pid = 1000;
  const processes = () => Array.from({ length: 4 }, () => process(pid++)).join("");
  const grown = parts.map((part, at) => {
    if (at === parts.length - 1) return part;
    const added = processes();
    const lines = clocks.split("\n").slice(2, -2);
    const table: string[] = [];
    for (let size = added.length; size < each && lines.length > 0; ) {
      const line = lines[table.length % lines.length] ?? "";
      table.push(line);
      size += line.length + 1;
    }
    return part
      .replace(
        "</supported_clocks>",
        `\t<supported_mem_clock>\n${table.join("\n")}\n\t\t\t</supported_mem_clock>\n\t\t</supported_clocks>`,
      )
      .replace(/<processes>[\s\S]*?<\/processes>|<processes \/>/, `<processes>\n${added}\t\t</processes>`);
  });
  return grown.join("</gpu>");
}
